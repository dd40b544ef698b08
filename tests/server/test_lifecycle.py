"""The state machine itself."""

from tinyclip.schemas import JobState
from tinyclip_server.jobs.lifecycle import FOLLOWS, ON_CLUSTER


def test_every_state_says_what_may_follow() -> None:
    assert set(FOLLOWS) == set(JobState)


def test_terminal_states_never_change() -> None:
    assert {state for state in JobState if not FOLLOWS[state]} == {state for state in JobState if state.terminal}


def test_every_state_can_be_reached_from_the_queue() -> None:
    reached, todo = set(), [JobState.QUEUED]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo.extend(FOLLOWS[state])

    assert reached == set(JobState)


def test_only_a_job_that_has_been_on_the_cluster_succeeds() -> None:
    assert {state for state in JobState if JobState.SUCCEEDED in FOLLOWS[state]} == set(ON_CLUSTER)
