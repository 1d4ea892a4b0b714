"""SimpleBaseline on a ResNet-18, which mmpose does not ship for COCO: its ResNet-50 with another backbone."""

_base_ = "mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py"

model = {"backbone": {"depth": 18}, "head": {"in_channels": 512}}
