"""Two machines on one: namespaces of Linux, each with its network and hostname, joined by a cable (TCP over veth)."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# A node's name and its file of hosts come first.
_ENTER = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'


@dataclass(frozen=True)
class Node:
    """A machine.

    Attributes:
        name: its hostname, and the name of its network namespace; both nodes resolve it to `address`.
        inside: the beginning of a command that runs there.
    """

    name: str
    address: str
    inside: tuple[str, ...]

    def kill(self) -> None:
        """Ends all processes there at once, as where the power fails."""
        for pid in _output("ip", "netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextmanager
def two_nodes(directory: Path) -> Iterator[tuple[Node, Node]]:
    """Makes the nodes, and removes them with all that runs there.

    Raises:
        PermissionError: namespaces and cables are not to be had here.
    """
    hosts = directory / "hosts"
    names = [f"ef{os.getpid()}{letter}" for letter in "ab"]
    nodes = [
        Node(name, f"10.231.77.{i}", ("ip", "netns", "exec", name, "unshare", "--mount", "--uts", "sh", "-c", _ENTER))
        for i, name in enumerate(names, start=1)
    ]
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{node.address} {node.name}\n" for node in nodes))
    nodes = [Node(node.name, node.address, (*node.inside, "sh", node.name, str(hosts))) for node in nodes]
    first, second = names
    with ExitStack() as stack:
        try:
            for name in names:
                _output("ip", "netns", "add", name)
                stack.callback(_output, "ip", "netns", "delete", name)
            _output("ip", "-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
            for node in nodes:
                stack.callback(node.kill)
                _output("ip", "-n", node.name, "address", "add", f"{node.address}/24", "dev", "cable")
                for device in ("lo", "cable"):
                    _output("ip", "-n", node.name, "link", "set", device, "up")
            subprocess.run([*nodes[0].inside, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", None) or error
            raise PermissionError(f"namespaces and cables need root on Linux: {why}") from error
        yield tuple(nodes)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
