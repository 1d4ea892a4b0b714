"""Words of pages about sets of keypoints with and without sigmas."""

from posequant.base.measures import AP, PCK, measure_for, measure_in, measure_of


def test_sets_with_sigmas_are_judged_by_ap() -> None:
    assert measure_of({"AP": 0.5, "PCK": 0.9}) is AP
    assert AP.said("Loss of OKS to FP32, AP50") == "Loss of OKS to FP32, AP50"


def test_sets_without_sigmas_are_judged_by_pck_and_nme() -> None:
    assert measure_of({"PCK": 0.9, "NME": 0.1}) is PCK
    assert PCK.said("Loss of OKS to FP32: 0.01. Loss of AP: 0.02.") == "NME to FP32: 0.01. Loss of PCK: 0.02."
    assert PCK.said("OKS to FP32, MAP, AP.") == "1 - NME to FP32, MAP, PCK."


def test_a_page_says_that_there_are_no_sigmas() -> None:
    said = PCK.said("Metric: COCO keypoints (OKS) by pycocotools; scoring, rescoring and NMS as in mmpose.")
    assert "The dataset has no sigmas, so there is neither OKS nor AP." in said


def test_a_record_says_what_its_network_is_judged_by() -> None:
    for measure, sigmas in ((AP, [0.1]), (PCK, None)):
        assert measure_for(sigmas) is measure
        assert measure_in({"judged_by": measure.loss}) is measure
