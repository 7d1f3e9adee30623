"""Files that retention took away: known, not missing, and never fetched again."""

from __future__ import annotations

from night import facts_of, files_of, keys_of, want

from raftwright.ledger import Ledger, Outcome


def test_a_removed_file_is_not_missing(ledger: Ledger) -> None:
    facts = facts_of()
    image_id = ledger.images.announce(facts)
    claims = ledger.claims.claim(want(*keys_of(facts)))
    ledger.claims.end_many(
        [(claim, Outcome(state="done", files=files_of(facts, claim.key.location))) for claim in claims]
    )
    assert ledger.images.judge(image_id).state == "complete"
    paths = [file.path for file in ledger.files.of(image_id, "raw")]
    assert sorted(ledger.files.removed(paths, "older than 30 d")) == sorted(paths)
    assert ledger.files.removed(paths, "again") == [], "once"
    assert {file.status for file in ledger.files.of(image_id, "raw")} == {"removed"}
    assert {detector.state for detector in ledger.images.detectors(image_id)} == {"present"}
    assert not ledger.files.lost(paths[0]), "what was taken away is not lost"
    assert not ledger.files.verified(paths[0], ok=False)
    assert ledger.images.judge(image_id).state == "complete"
    assert ledger.read("SELECT count(*) FROM obscore") == [(0,)], "it is not there to be read"
    told = [event for event in ledger.events.of(image_id) if event.new == "removed"]
    assert len(told) == len(paths)


def test_a_removed_file_that_comes_back_is_entered(ledger: Ledger) -> None:
    """From a replica, by hand."""
    facts = facts_of()
    image_id = ledger.images.announce(facts)
    (file, *_) = files_of(facts, "22/0")
    ledger.files.enter([file])
    ledger.files.removed([file.path], "older than 30 d")
    assert ledger.files.enter([file]) == 1
    assert [row.status for row in ledger.files.of(image_id, "raw")] == ["written"]
