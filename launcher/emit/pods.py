"""What `kubectl get pods -o json` says of peers: the signed proposals that their init containers left as last message.

Whoever may read pods may have this file, and whoever may write their status could change it: proposals are signed, so a
false one is one that its pod does not approve, or a peer of whoever forged it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from btard.node.errors import ConfigError
from btard.node.genesis.proposal import Proposal, decode_proposal

PODS_BYTES = 64 << 20
"""Largest file: a pod takes some 10 kB of it."""
CONTAINER = "identity"
"""The init container that makes the keys and proposes."""
_MESSAGE_CHARACTERS = 200


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Terminated(msgspec.Struct, frozen=True):
    exit_code: int = msgspec.field(name="exitCode")
    message: str = ""


class _State(msgspec.Struct, frozen=True):
    terminated: _Terminated | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    state: _State = _State()
    last_state: _State = _State()


class _PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    init_containers: tuple[_Named, ...] = ()


class _PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    init_container_statuses: tuple[_Status, ...] = ()


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    namespace: str = "default"


class _Pod(msgspec.Struct, frozen=True):
    metadata: _Metadata
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


class _List(msgspec.Struct, frozen=True):
    items: tuple[_Pod, ...]


def proposals(data: bytes, name: str) -> dict[str, Proposal]:
    """The proposals of all pods that have such an init container, by the pod's name.

    Args:
        data: JSON, a list of pods.
        name: of the file, for messages.

    Raises:
        ConfigError: it is no list of pods, has no peer, or a pod has not proposed or left no proposal.
    """
    try:
        pods = msgspec.json.decode(data, type=_List).items
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is no list of pods ({error}); `kubectl get pods -o json` prints one") from error
    peers = [pod for pod in pods if any(each.name == CONTAINER for each in pod.spec.init_containers)]
    if not peers:
        raise ConfigError(
            f"{name} has {len(pods)} pods and no peer among them: none has an init container {CONTAINER!r}; name their "
            "namespace (kubectl get pods -n NAMESPACE -o json)"
        )
    found: dict[str, Proposal] = {}
    for pod in peers:
        label = f"{name}: pod {_printable(pod.metadata.namespace)}/{_printable(pod.metadata.name)}"
        if label in found:
            raise ConfigError(f"{label} is there twice; leave out one of the two")
        found[label] = decode_proposal(_message(pod.status.init_container_statuses, label).encode(), label)
    return found


def _message(statuses: Sequence[_Status], label: str) -> str:
    """What the init container wrote.

    Raises:
        ConfigError: it has not ended, or with an error.
    """
    status = next((each for each in statuses if each.name == CONTAINER), None)
    ended = (status.state.terminated or status.last_state.terminated) if status is not None else None
    if ended is None:
        raise ConfigError(f"{label} has not proposed yet; ask again when its init container has ended")
    if ended.exit_code != 0:
        said = _printable(ended.message) or "it left no message"
        raise ConfigError(f"{label} could not propose (exit code {ended.exit_code}): {said}")
    return ended.message


def _printable(text: str) -> str:
    """A text of somebody else's as part of a line."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_MESSAGE_CHARACTERS].strip()
