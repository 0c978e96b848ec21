"""What a driver that died has left: a served name, the service, a verdict, a candidate.

Whoever is about to work in the workspace deals with it first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driver.session import Session


def take_over(session: Session) -> None:
    """Deal with all of that, in the order in which it matters to the users.

    Raises `FileUnusable` where it cannot be known which models are good.
    """
    from driver import candidates, damaged, promotion, records, verification

    damaged.settle(session.workspace, session.display.warn)
    if said := promotion.settle(session.workspace):
        session.display.warn(said)
    try:
        bring_back_first(session)
    finally:  # a service that does not come back must find no bad model when it does
        verification.settle(session.workspace, session.display.warn, unfinished=False)
    records.require_whole(session.workspace)
    candidates.drop(
        session.workspace,
        session.engine,
        lambda: session.containers.at_work() if session.containers else [],
        session.display.warn,
    )


def bring_back_first(session: Session) -> None:
    """Bring back the service that a driver that died has left stopped.

    If its stage still works in a container, the service stays away and the run goes on with it:
    brought back now, the two would fight for the GPU.
    """
    from driver import recover

    if not session.window.is_open:
        return
    # On another engine this run could not go on with it, and no later start would know of it.
    recover.stop_stages(session.workspace, session.display.warn, but=session.docker_host)
    if session.containers:
        session.containers.drop_former()
    at_work = session.containers.at_work() if session.containers else []
    if at_work:
        session.display.warn(
            f"a run that died has left the service stopped, and {', '.join(at_work)} at work; "
            "this run goes on with both"
        )
        return
    session.display.warn("a run that died has left the service stopped; bringing it back first")
    session.close_window()
