"""A machine on which cortexd serves: a simulated neuron, a configuration, and questions to ask."""

import json
import sys

from tests.installed.machine import ROOT, Machine

KEY = "sk-alice"
HARD_CAP = 100_000
GATEWAY = "http://127.0.0.1:31313"
MODEL = "sim/small"
CONFIG_FILE = "/etc/cortexd/cortexd.yaml"
CONFIG = f"""\
neurons:
  - {{name: beast, endpoint: "http://127.0.0.1:13131"}}
entitlements:
  keys:
    - {{account_id: alice, key: {KEY}, hard_cap: {HARD_CAP}}}
ledger:
  directory: /var/lib/cortexd/ledger
"""


class Site:
    """What is done to cortexd, and asked of it, on one machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.traces_before = self.traces()

    def traces(self) -> set[str]:
        """Every file and folder that is called after cortexd, where packages put theirs."""
        asked = ("find", "/etc", "/usr", "/var", "-xdev", "-name", "*cortexd*")
        return set(self.machine.run(*asked).splitlines())

    def start_neuron(self, *, port: int = 13131, model: str = MODEL) -> None:
        """A simulated neuron, as a service; it accepts when this returns."""
        command = ("-m", "tests.support.neuron_process", "--port", str(port), "--model", model)
        place = f"--working-directory={ROOT}"
        self.machine.run("systemd-run", "--unit=neuron", place, sys.executable, *command)
        asked = f"until curl -s http://127.0.0.1:{port}/v1/models > /dev/null; do :; done"
        self.machine.run("timeout", "30", "bash", "-c", asked)

    def configure(self, text: str = CONFIG) -> None:
        """Write the configuration, as an editor would: owner and mode stay."""
        self.machine.write(CONFIG_FILE, text)

    def ask(self, key: str = KEY) -> int:
        """One question; the tokens that its answer says it cost. It has to be answered."""
        question = {
            "model": MODEL,
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "What is a budget?"}],
        }
        answer = self._curl(key, "/v1/chat/completions", "-d", json.dumps(question))
        usage = answer["usage"]
        assert isinstance(usage, dict)
        return int(usage["total_tokens"])

    def spent(self, key: str = KEY) -> int:
        """What the key has spent, as its budget says."""
        spent = self._curl(key, "/v1/budget")["spent"]
        assert isinstance(spent, int)
        return spent

    def _curl(self, key: str, path: str, *more: str) -> dict[str, object]:
        command = ["curl", "-sS", "--fail-with-body", "-H", f"Authorization: Bearer {key}", *more]
        answer = json.loads(self.machine.run(*command, f"{GATEWAY}{path}"))
        assert isinstance(answer, dict)
        return answer

    @property
    def pid(self) -> int:
        """The daemon's process, as its machine counts; 0: none."""
        return int(self.machine.shows("cortexd", "MainPID"))

    def drop_in(self, name: str, text: str) -> None:
        """Add to the unit for as long as the machine runs."""
        self.machine.write(f"/run/systemd/system/cortexd.service.d/{name}.conf", text)
        self.machine.run("systemctl", "daemon-reload")

    def without_drop_ins(self) -> None:
        """The unit as it is installed, and cortexd running by it."""
        self.machine.run("rm", "-rf", "/run/systemd/system/cortexd.service.d")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", "cortexd")
