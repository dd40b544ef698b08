"""The state machine of jobs, stages and attempts."""

import pytest
from tinyclip.schemas import JobState, StageState
from tinyclip_server.database.tables import AttemptRow, JobRow, StageRow
from tinyclip_server.jobs.lifecycle import JOB_TRANSITIONS, NEXT_STEP, ON_CLUSTER, STAGE_TRANSITIONS, IllegalState, end_attempt
from tinyclip_server.jobs.lifecycle import AttemptOutcome as Outcome


def test_every_job_state_has_transitions() -> None:
    assert set(JOB_TRANSITIONS) == set(JobState)


def test_terminal_states_never_change() -> None:
    assert {state for state in JobState if not JOB_TRANSITIONS[state]} == {state for state in JobState if state.terminal}


def test_every_state_can_be_reached_from_the_queue() -> None:
    reached, todo = set(), [JobState.QUEUED]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo.extend(JOB_TRANSITIONS[state])

    assert reached == set(JobState)


def test_only_a_job_that_has_been_on_the_cluster_succeeds() -> None:
    assert {state for state in JobState if JobState.SUCCEEDED in JOB_TRANSITIONS[state]} == set(ON_CLUSTER)


def test_every_state_has_a_next_step() -> None:
    assert set(NEXT_STEP) == set(JobState)


def test_every_stage_state_has_transitions() -> None:
    assert set(STAGE_TRANSITIONS) == set(StageState)
    assert {state for state in StageState if not STAGE_TRANSITIONS[state]} == {
        StageState.SUCCEEDED, StageState.FAILED, StageState.CANCELLED,
    }


@pytest.mark.parametrize("before", JobState)
@pytest.mark.parametrize("after", JobState)
def test_an_illegal_transition_raises(before: JobState, after: JobState) -> None:
    job = JobRow(id="job_1", state=before)

    if after in JOB_TRANSITIONS[before]:
        job.state = after
    else:
        with pytest.raises(IllegalState, match=f"job job_1: {before} cannot become {after}"):
            job.state = after

    assert job.state == (after if after in JOB_TRANSITIONS[before] else before)


@pytest.mark.parametrize("before", [StageState.SUCCEEDED, StageState.FAILED, StageState.CANCELLED])
@pytest.mark.parametrize("after", StageState)
def test_an_ended_stage_does_not_change(before: StageState, after: StageState) -> None:
    stage = StageRow(job_id="job_1", index=0, state=before)

    with pytest.raises(IllegalState):
        stage.state = after


@pytest.mark.parametrize("first", Outcome)
@pytest.mark.parametrize("second", Outcome)
def test_an_attempt_ends_once(first: Outcome, second: Outcome) -> None:
    attempt = AttemptRow(job_id="job_1", number=1, ray_submission_id="tc-job_1-a1")
    end_attempt(attempt, first)

    with pytest.raises(IllegalState, match=f"tc-job_1-a1 has {first} and cannot also have {second}"):
        end_attempt(attempt, second)
