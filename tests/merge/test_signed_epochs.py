"""A member that was killed does not sign rosters of the same merge again."""

from pathlib import Path

from iota_p2p.merge.signed_epochs import SignedEpochs


def test_signed_epochs__begin_each_merge_once_across_restarts(tmp_path: Path) -> None:
    """Stages count by themselves; earlier epochs are over, too."""
    path = tmp_path / "folder" / "signed"
    signed = SignedEpochs(path)
    assert [signed.begin(0, 3), signed.begin(0, 3), signed.begin(1, 3)] == [True, False, True]
    again = SignedEpochs(path)
    assert [again.begin(0, 3), again.begin(0, 4), again.begin(0, 4), again.begin(0, 0)] == [False, True, False, True]


def test_signed_epochs__begin_anew_when_their_file_is_damaged(tmp_path: Path) -> None:
    """Better than never to merge again."""
    for text in ("", "[]", '{"a": 1}', '{"1": null}'):
        (tmp_path / "signed").write_text(text, "ascii")
        assert SignedEpochs(tmp_path / "signed").begin(0, 0)
