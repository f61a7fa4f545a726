"""A one-node Ceph object gateway (S3 with real signatures) in memory, on free loopback ports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool", "ceph-authtool")
START_SECONDS = 120.0

_CONFIGURATION = """[global]
fsid={fsid}
mon_host=[v2:127.0.0.1:{mon_v2}/0,v1:127.0.0.1:{mon_v1}/0]
public_addr=127.0.0.1
cluster_addr=127.0.0.1
ms_bind_ipv6=false
auth_cluster_required=cephx
auth_service_required=cephx
auth_client_required=cephx
keyring={home}/keyring
run_dir={home}
admin_socket=
log_file={home}/$name.log
mon_data={home}/mon
mon_data_avail_crit=1
mon_data_avail_warn=2
mon_allow_pool_size_one=true
mon_max_pg_per_osd=1000
paxos_propose_interval=0.05
paxos_min_wait=0.01
osd_data={home}/osd
osd_objectstore=memstore
memstore_device_bytes=2147483648
osd_pool_default_size=1
osd_pool_default_min_size=1
osd_pool_default_pg_num=1
osd_pool_default_pgp_num=1
osd_pool_default_pg_autoscale_mode=off
osd_crush_chooseleaf_type=0
osd_class_load_list=*
osd_class_default_list=*
[client.rgw]
rgw_data={home}/rgw
rgw_frontends=beast endpoint=127.0.0.1:{port}
rgw_gc_max_objs=1
rgw_lc_max_objs=1
rgw_dynamic_resharding=false
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """One user's credentials."""

    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """As variables of boto3's default chain."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway.

    Attributes:
        port: on 127.0.0.1.
        owner: who makes the buckets.
        stranger: a user of the same store who may read none of them.
    """

    port: int
    owner: Keys
    stranger: Keys

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def missing_programs() -> list[str]:
    """What has to be installed first: the Debian packages ceph-mon, ceph-osd, radosgw and ceph-common."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextmanager
def running_gateway() -> Iterator[Gateway]:
    """A gateway that ends with this context, and with this process if that is killed."""
    home = Path(tempfile.mkdtemp(prefix="rgw-"))
    try:
        with ExitStack() as daemons:
            yield _start(home, daemons)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def daemon(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Iterator[None]:
    """A server process that ends with this context, and with this process if that is killed."""
    with log.open("ab") as output:
        guarded = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        process = subprocess.Popen(guarded, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def wait_until(is_ready: Callable[[], bool], what: str) -> None:
    """Poll until ``is_ready``, at most :data:`START_SECONDS`."""
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not start in {START_SECONDS:.0f} s")
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether an HTTP server is there, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _start(home: Path, daemons: ExitStack) -> Gateway:
    environment = os.environ | {"CEPH_CONF": str(home / "ceph.conf")}
    fsid, port, mon_v2, mon_v1 = str(uuid.uuid4()), free_port(), free_port(), free_port()
    configuration = _CONFIGURATION.format(home=home, fsid=fsid, port=port, mon_v2=mon_v2, mon_v1=mon_v1)
    (home / "ceph.conf").write_text(configuration)
    for folder in ("mon", "osd", "rgw"):
        (home / folder).mkdir()

    def run(*command: str) -> str:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=START_SECONDS
        )
        assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"
        return done.stdout

    def start(*command: str) -> None:
        daemons.enter_context(daemon(list(command), home / f"{command[0]}.out", environment))

    keyring, monmap = str(home / "keyring"), str(home / "monmap")
    addresses = f"[v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]"
    run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", addresses, monmap)
    run("ceph-authtool", keyring, "--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    rights = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"]
    for name in ("client.admin", "client.rgw", "osd.0"):
        run("ceph-authtool", keyring, "--gen-key", "-n", name, *rights)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
    start("ceph-mon", "-f", "-i", "a")
    osd = str(uuid.uuid4())
    run("ceph", "--connect-timeout", "60", "osd", "new", osd, "0")
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    start("ceph-osd", "-f", "-i", "0")
    wait_until(lambda: json.loads(run("ceph", "osd", "stat", "-f", "json"))["num_up_osds"] == 1, "the Ceph OSD")
    gateway = Gateway(port, Keys("owner-key", "owner-secret"), Keys("stranger-key", "stranger-secret"))
    for uid, keys in (("owner", gateway.owner), ("stranger", gateway.stranger)):
        secrets = [f"--access-key={keys.access_key}", f"--secret-key={keys.secret_key}"]
        run("radosgw-admin", "user", "create", f"--uid={uid}", f"--display-name={uid}", *secrets)
    start("radosgw", "-f", "-n", "client.rgw")
    wait_until(lambda: answers(gateway.endpoint_url), "the Ceph gateway")
    return gateway
