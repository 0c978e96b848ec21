"""The backend's bulk call, channel by channel, for those channels where it loses nothing.

One request for a whole channel, one transaction, committed at the end. So it is only for a channel
in which no item is reviewed (it would be overwritten), there are at most 1000 (the call takes no
more, and has no offset), all are known to this run, and none has been asked about. All others go
item by item, and that is said before the first request.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from contracts.errors import BackendUnavailable
from contracts.params import ReprocessParams
from driver.adapters.backend import MOST_AT_ONCE, Backend
from driver.adapters.items import AnswerStorage
from driver.host_stages import reanalysis
from driver.host_stages.outage import Outage
from driver.host_stages.outcomes import Outcomes
from driver.host_stages.reanalysis import Outcome, Row, Seen
from driver.host_stages.telling import say

_POLL_S = 1.0
Channel = dict[str, Row]
"""The items of a channel by id, as the backend shows them."""


class Bulk:
    """Bulk runs of the channels that allow them."""

    def __init__(
        self,
        backend: Backend,
        storage: AnswerStorage,
        outcomes: Outcomes,
        params: ReprocessParams,
        outage: Outage,
        keep: Callable[[Channel], None],
    ) -> None:
        """`keep` is given whole items that are not in the snapshot of what the items held."""
        self._backend = backend
        self._storage = storage
        self._outcomes = outcomes
        self._params = params
        self._outage = outage
        self._keep = keep

    def run(self, now: Channel, others: Channel | None) -> Iterator[tuple[str, Seen]]:
        """Yield what became of the items of those channels.

        `now` are the items to reprocess, `others` all else that the backend has, None where it does
        not say. An item of which nothing is yielded is left to be done by itself.
        """
        if others is None:
            say("all items go one by one: the backend cannot list what is in its channels")
            return
        chosen, refused = self._choose(now, others)
        say(f"{len(chosen)} channels by one request each ({sum(map(len, chosen.values()))} items)")
        for reason, count in refused.items():
            say(f"{count} channels item by item: {reason}")
        for channel_id, items in chosen.items():
            try:
                yield from self._channel(channel_id, items)
            except BackendUnavailable as error:
                self._outage.sit_out(error)
                self._give_up(items, "the backend was away, which loses a bulk run")

    def _choose(self, now: Channel, others: Channel) -> tuple[dict[int, Channel], Counter[str]]:
        """Return the channels for the bulk call, and how many are not for it, by reason."""
        channels: dict[int | None, Channel] = defaultdict(dict)
        for item_id, item in now.items():
            channels[item.get("channel_id")][item_id] = item
        strange = {item.get("channel_id") for item in others.values()}
        chosen: dict[int, Channel] = {}
        refused: Counter[str] = Counter()
        for channel_id, items in channels.items():
            if channel_id is None:
                refused["the backend does not name them"] += 1
            elif channel_id in strange:
                refused["they hold items that this run does not know"] += 1
            elif reason := self._objection(items):
                refused[reason] += 1
            else:
                chosen[channel_id] = items
        return chosen, refused

    def _objection(self, items: Channel) -> str:
        """Return why a channel cannot be done by one request, "" if it can."""
        if not self._params.reviewed and any(
            item.get("is_manually_reviewed") is True for item in items.values()
        ):
            return "reviewed items would be overwritten"
        if len(items) > MOST_AT_ONCE:
            return f"one request takes no more than {MOST_AT_ONCE} items"
        if items.keys() & (self._outcomes.by_id.keys() | self._outcomes.asked.keys()):
            return "an earlier start has begun with them"
        return ""

    def _channel(self, channel_id: int, listed: Channel) -> Iterator[tuple[str, Seen]]:
        """Have one channel analysed anew; yields each item when its new state shows."""
        # Hours may have passed since they were listed, and the channel may have others by now.
        there = self._members(channel_id, listed)
        if there.keys() != listed.keys() or self._objection(there):
            say(f"channel {channel_id} goes item by item: it has changed meanwhile")
            return
        before = {i: reanalysis.state_of(item, self._storage) for i, item in there.items()}
        wait_s = min(self._params.bulk_timeout_s, self._params.timeout_s * len(before))
        self._outcomes.intend(before, wait_s)
        count = self._backend.reprocess_channel(channel_id)
        if count != len(before):
            came = self._others(channel_id, count, before)
            self._outcomes.intend(came, wait_s)
            before |= came
        yield from self._shown(before, wait_s)

    def _members(self, channel_id: int, known: Iterable[str]) -> Channel:
        """Return what is in a channel now, `known` items whole; nothing if it cannot be listed."""
        listed, shown = reanalysis.look_at(self._backend, self._storage, known)
        there = {i: it for i, it in listed.items() if it.get("channel_id") == channel_id}
        return {i: shown.get(i, item) for i, item in there.items()}

    def _others(self, channel_id: int, count: int, known: Mapping[str, Row]) -> dict[str, Row]:
        """Keep and return what came into a channel at the very moment of its request; says so.

        The request cannot be taken back. What such an item holds is its former answer, since a bulk
        run shows nothing before its end.
        """
        say(f"channel {channel_id}: the backend takes {count} items, {len(known)} are known")
        came = [i for i in self._members(channel_id, known) if i not in known]
        _, whole = reanalysis.look_at(self._backend, self._storage, came)
        if not whole:
            return {}
        self._keep(whole)
        say(f"came in meanwhile, and what they hold is kept: {', '.join(whole)}")
        reviewed = [i for i, item in whole.items() if item.get("is_manually_reviewed") is True]
        if reviewed:
            say(f"REVIEWED ITEMS ARE OVERWRITTEN: {', '.join(reviewed)}; `--restore` has them")
        return {i: reanalysis.state_of(item, self._storage) for i, item in whole.items()}

    def _shown(self, before: dict[str, Row], wait_s: float) -> Iterator[tuple[str, Seen]]:
        """Yield the items of a bulk run when their new states show; what failed is left over."""
        deadline, committed = time.monotonic() + wait_s, False
        while not committed:
            first = next(iter(before))
            if self._seen(first, before[first]) is None:
                if time.monotonic() > deadline:
                    self._give_up(before, f"nothing has changed within {wait_s:.0f} s")
                    return
                before[first] = before.pop(first)  # it may be one that cannot be shown any more
                self._outage.pause(_POLL_S)
                continue
            for item_id, state in list(before.items()):
                if seen := self._seen(item_id, state):
                    del before[item_id]
                    committed |= seen.outcome is Outcome.PROCESSED
                    if seen.outcome is not Outcome.FAILED:
                        yield item_id, seen
            committed |= not before
        self._give_up(before, "they have not changed with their channel")

    def _seen(self, item_id: str, before: Row) -> Seen | None:
        return reanalysis.settle(self._backend, self._storage, item_id, before, 0)

    def _give_up(self, items: Mapping[str, Row], why: str) -> None:
        """Leave items to be done by themselves, behind all others."""
        if not items:
            return
        say(f"{len(items)} items are left to be done one by one: {why}")
        until = time.time() + self._params.timeout_s
        for item_id in items:
            if asked := self._outcomes.asked.get(item_id):
                self._outcomes.asked[item_id] = replace(asked, until=until)
