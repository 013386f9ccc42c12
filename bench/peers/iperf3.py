"""iperf3: what one TCP connection carries over the link, without encryption. Beside the speed of a bulk copy."""

import json
import time

from field import FieldError
from peers.base import Subject

PORT = "5201"
SECONDS = 3


class Iperf3(Subject):
    name = "iperf3"

    def sample(self, workload, figures):
        server = self.field.start("beta", "iperf3", "--server", "--port", PORT)
        try:
            for _ in range(50):
                done = self.field.run("alpha", "iperf3", "--client", self.rig.address("beta"), "--port", PORT, "--time", str(SECONDS), "--json",
                                      check=False)
                if done.returncode == 0:
                    break
                time.sleep(0.1)
            else:
                raise FieldError(f"iperf3: {done.stdout.strip()}")
        finally:
            server.terminate()  # one that shall end by itself (--one-off) does not always
            server.wait(timeout=10)
        speed = json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 8e6
        if figures is not None:
            figures.add(workload.name, self.name, self.rig.link, "bulk speed", "MB/s", speed)
