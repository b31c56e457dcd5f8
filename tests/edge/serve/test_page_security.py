"""The page as it is sent: one file, nothing from elsewhere, and a policy that allows no more."""

import base64
import hashlib
import re

from edge.serve.page import load_page


def test_the_policy_lets_this_script_run_and_no_other() -> None:
    page = load_page()
    text, policy = page.body.decode(), dict(page.headers)[b"content-security-policy"].decode()
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_nothing_is_loaded_from_elsewhere_and_nothing_becomes_html() -> None:
    text = load_page().body.decode()
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\"]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert word not in text
    assert not re.search(r"<[^>]+\son\w+=|<[^>]+\sstyle=", text)
