"""The comparison of two files as JUnit XML, which CI systems show as tests."""

from xml.etree import ElementTree

from posequant.report.compare import Differences
from posequant.report.compare_page import headline, in_words


def junit(differences: Differences) -> bytes:
    """Return a document with a test suite: a test case for each figure that is compared.

    A figure that is not within its tolerance is a failure. One that may not be compared is skipped, as is a row that
    only one of the files has. The form is that of Jenkins' JUnit plugin.
    """
    images = differences.images
    suite = ElementTree.Element("testsuite", name=f"{differences.second} against {differences.first}", time="0")
    for figure in differences.figures:
        case = _case(suite, figure.row, figure.name)
        said = in_words(figure, images)
        if figure.passed is False:
            ElementTree.SubElement(case, "failure", message=said, type="loss").text = said
        elif figure.passed is None and figure.difference is None:
            ElementTree.SubElement(case, "skipped", message=said)
        else:
            ElementTree.SubElement(case, "system-out").text = said
    for name, rows in (("A", differences.only_in_first), ("B", differences.only_in_second)):
        for row in rows:
            ElementTree.SubElement(_case(suite, row, "in both"), "skipped", message=f"the row is only in {name}")
    counts = {
        "tests": len(suite),
        "failures": len(suite.findall("./testcase/failure")),
        "errors": 0,
        "skipped": len(suite.findall("./testcase/skipped")),
    }
    root = ElementTree.Element("testsuites", name=headline(differences), time="0")
    for element in (root, suite):
        for name, count in counts.items():
            element.set(name, str(count))
    root.append(suite)
    del root.attrib["skipped"]  # not an attribute of the whole
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _case(suite: ElementTree.Element, row: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=row, name=name, time="0")
