"""The quickstart's data: requests in English and the docker command that answers each, written by a seeded generator.

Nothing is read or downloaded. A split is decided by a hash of the command, so that no command of one split stands in
another, however it is worded; the parts of a command (verbs, options, names, ports) are shared by all three.
Only rows are made here; what a row means to a model (template, tokens, masks) is not known.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Literal, TypeVar

Split = Literal["train", "eval", "test"]
T = TypeVar("T")

NUM_ROWS: dict[Split, int] = {"train": 3000, "eval": 300, "test": 300}
SEED = 20_240
RUN_SHARE = 0.3  # of the draws are `docker run`, the one command with options to combine

SERVICES = ("web", "data", "user", "mail", "file", "test", "search", "log", "time", "order", "image", "build")
ROLES = ("server", "client", "cache", "api", "db", "queue", "proxy", "worker", "store", "view")
SLOTS: dict[str, tuple[str, ...]] = {
    "image": (
        "nginx",
        "redis",
        "postgres",
        "mysql",
        "python",
        "node",
        "alpine",
        "ubuntu",
        "debian",
        "golang",
        "httpd",
        "mongo",
    ),
    "tag": ("latest", "stable", "1.0", "1.2", "2.0", "2.1", "3.5", "dev", "test", "slim"),
    "network": ("front", "back", "public", "private", "local", "shared", "internal", "main"),
    "volume": ("state", "files", "logs", "backup", "config", "models", "reports", "uploads"),
    "path": ("/data", "/app", "/etc", "/var/log", "/home", "/opt", "/config", "/output"),
    "file": ("config.json", "setup.py", "index.html", "data.csv", "notes.txt", "server.log"),
    "folder": ("src", "docs", "server", "client", "tools", "base"),
    "port": ("80", "443", "3000", "3306", "5000", "5432", "8000", "8080"),
    "host_port": ("80", "81", "90", "443", "3000", "4000", "5000", "7000", "8000", "8080", "9000"),
    "variable": ("MODE", "DEBUG", "LEVEL", "LANG", "USER", "STAGE"),
    "value": ("test", "debug", "info", "fast", "local", "1", "0"),
    "count": ("5", "10", "20", "50", "100", "200", "500"),
    "seconds": ("5", "10", "15", "30", "60"),
    "memory": ("256m", "512m", "1g", "2g", "4g"),
    "cpus": ("1", "2", "4", "8"),
    "policy": ("always", "on-failure", "no"),
    "program": ("ls", "env", "date", "ps", "whoami", "hostname", "python", "top"),
    "shell": ("bash", "sh"),
    "account": ("root", "admin", "nobody", "guest"),
}

OPENERS = ("{}", "please {}", "can you {}?", "I want to {}", "I need to {}", "how do I {}?", "help me {}")

# One entry a command: the command, then the ways in which people ask for it. All asks are imperatives.
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("docker ps -n {count}", "list the last {count} containers created", "show the {count} newest containers"),
    ("docker stop {name}", "stop {name}", "shut down the {name} container", "bring {name} to a stop"),
    ("docker stop -t {seconds} {name}", "stop {name} after {seconds} seconds", "give {name} {seconds} seconds to stop"),
    ("docker start {name}", "start {name} again", "start the stopped container {name}"),
    ("docker restart {name}", "restart {name}", "stop and start {name}", "restart the {name} container"),
    ("docker pause {name}", "pause {name}", "freeze everything in {name}"),
    ("docker unpause {name}", "unpause {name}", "let {name} go on after a pause"),
    ("docker kill {name}", "kill {name}", "end {name} at once without waiting"),
    ("docker rm {name}", "remove the container {name}", "delete {name}"),
    ("docker rm -f {name}", "remove {name} even if it is running", "force the removal of {name}"),
    ("docker rm -v {name}", "remove {name} and its volumes", "delete {name} with its volumes"),
    ("docker logs {name}", "show the logs of {name}", "print the log of the {name} container"),
    ("docker logs -f {name}", "follow the logs of {name}", "keep printing the log of {name}"),
    (
        "docker logs --tail {count} {name}",
        "show the last {count} log lines of {name}",
        "print {count} lines from the end of the log of {name}",
    ),
    ("docker logs -f --tail {count} {name}", "follow the logs of {name} from the last {count} lines"),
    ("docker logs --since {seconds}m {name}", "show the logs of {name} from the last {seconds} minutes"),
    ("docker exec {name} {program}", "run {program} in {name}", "execute {program} inside the {name} container"),
    ("docker exec -it {name} {shell}", "open a {shell} shell in {name}", "get a {shell} prompt inside {name}"),
    (
        "docker exec -u {account} {name} {program}",
        "run {program} in {name} as {account}",
        "execute {program} as {account} inside {name}",
    ),
    ("docker inspect {name}", "inspect {name}", "show the details of {name}"),
    ("docker stats {name}", "watch the resource usage of {name}", "show live stats for {name}"),
    (
        "docker stats --no-stream {name}",
        "show the resource usage of {name} once",
        "print the stats of {name} a single time",
    ),
    ("docker top {name}", "list the processes of {name}", "see which processes run in {name}"),
    ("docker port {name}", "list the ports of {name}", "show the port mappings of {name}"),
    ("docker diff {name}", "list the changed files of {name}", "show what changed in the files of {name}"),
    ("docker wait {name}", "wait until {name} exits", "wait for {name} to end"),
    ("docker rename {name} {other}", "rename {name} to {other}", "change the name of {name} to {other}"),
    (
        "docker commit {name} {image}:{tag}",
        "save the container {name} as the image {image}:{tag}",
        "commit {name} to {image}:{tag}",
    ),
    (
        "docker update --memory {memory} {name}",
        "limit the memory of {name} to {memory}",
        "set the memory limit of {name} to {memory}",
    ),
    ("docker update --cpus {cpus} {name}", "limit {name} to {cpus} cpus", "let {name} use {cpus} cpus at most"),
    ("docker cp {name}:{path} .", "copy {path} out of {name}", "copy {path} from {name} to this folder"),
    (
        "docker cp {file} {name}:{path}",
        "copy {file} to {path} in {name}",
        "put {file} into {path} of the {name} container",
    ),
    (
        "docker pull {image}:{tag}",
        "pull {image}:{tag}",
        "download the {tag} image of {image}",
        "get {image} with tag {tag}",
    ),
    ("docker push {name}:{tag}", "push {name}:{tag}", "upload {name} with tag {tag} to the registry"),
    ("docker rmi {image}:{tag}", "remove the image {image}:{tag}", "delete the {tag} image of {image}"),
    ("docker history {image}:{tag}", "show the layers of {image}:{tag}", "show how {image}:{tag} was built"),
    ("docker tag {image}:{tag} {name}", "tag {image}:{tag} as {name}", "give {image}:{tag} the new name {name}"),
    (
        "docker save -o {name}.tar {image}",
        "save the image {image} to {name}.tar",
        "write {image} to the file {name}.tar",
    ),
    ("docker load -i {name}.tar", "load an image from {name}.tar", "read the image in {name}.tar"),
    ("docker build -t {name} .", "build an image called {name}", "build this folder as {name}"),
    ("docker build -t {name}:{tag} .", "build an image {name} with tag {tag}", "build this folder as {name}:{tag}"),
    ("docker build -t {name} {folder}", "build {name} from the {folder} folder", "build the {folder} folder as {name}"),
    ("docker build --no-cache -t {name} .", "build {name} without the cache", "build {name} from scratch"),
    ("docker network create {network}-net", "create a network called {network}-net", "add the network {network}-net"),
    ("docker network rm {network}-net", "remove the network {network}-net", "delete the {network}-net network"),
    (
        "docker network connect {network}-net {name}",
        "connect {name} to {network}-net",
        "attach {name} to the {network}-net network",
    ),
    (
        "docker network disconnect {network}-net {name}",
        "disconnect {name} from {network}-net",
        "take {name} off the {network}-net network",
    ),
    (
        "docker network inspect {network}-net",
        "inspect the network {network}-net",
        "show the details of the {network}-net network",
    ),
    ("docker volume create {volume}", "create a volume called {volume}", "add the volume {volume}"),
    ("docker volume rm {volume}", "remove the volume {volume}", "delete the {volume} volume"),
    ("docker volume inspect {volume}", "inspect the volume {volume}", "show the details of the {volume} volume"),
)

RUN_ASKS = ("run {image}", "start {image}", "launch a {image} container", "run the {image} image")
# Options of `docker run` in the order in which they are written, each with the ways to ask for it.
RUN_OPTIONS: tuple[tuple[str, ...], ...] = (
    ("-d", "in the background", "detached"),
    ("--rm", "and remove it when it exits", "and clean it up afterwards"),
    ("--name {name}", "named {name}", "called {name}"),
    ("--network {network}-net", "on the {network}-net network", "connected to {network}-net"),
    ("-p {host_port}:{port}", "with port {host_port} mapped to {port}", "with host port {host_port} going to {port}"),
    ("-e {variable}={value}", "with {variable} set to {value}", "with {variable}={value}"),
    ("-v {volume}:{path}", "with the volume {volume} at {path}", "with {volume} mounted at {path}"),
    ("--memory {memory}", "with {memory} of memory", "limited to {memory} of memory"),
    ("--restart {policy}", "with restart policy {policy}", "with the {policy} restart policy"),
)


def rows(split: Split) -> list[dict]:
    """The rows of one split, the same on every machine, in the OpenAI `messages` form.

    Returns: `NUM_ROWS[split]` rows, each one user turn and one assistant turn. Train may ask for one command in several
    wordings; eval and test hold each command once, and none that stands in another split.
    """
    generator = random.Random(SEED)
    found: dict[str, str] = {}
    while len(found) < NUM_ROWS[split]:
        ask, command = _draw(generator)
        if _split_of(command) == split:
            found.setdefault(ask if split == "train" else command, command if split == "train" else ask)
    pairs = found.items() if split == "train" else ((ask, command) for command, ask in found.items())
    return [_row(ask, command) for ask, command in pairs]


def _split_of(command: str) -> Split:
    bucket = hashlib.sha256(command.encode()).digest()[0]
    if bucket < 24:
        return "test"
    return "eval" if bucket < 48 else "train"


def _draw(generator: random.Random) -> tuple[str, str]:
    """A request and its command."""
    ask, command = _draw_run(generator) if generator.random() < RUN_SHARE else _draw_plain(generator)
    values = {slot: _pick(generator, choices) for slot, choices in SLOTS.items()}
    values["name"], values["other"] = (f"{_pick(generator, SERVICES)}-{_pick(generator, ROLES)}" for _ in range(2))
    sentence = _pick(generator, OPENERS).format(ask.format_map(values))
    return sentence[0].upper() + sentence[1:], command.format_map(values)


def _draw_plain(generator: random.Random) -> tuple[str, str]:
    command, *asks = _pick(generator, COMMANDS)
    return _pick(generator, asks), command


def _draw_run(generator: random.Random) -> tuple[str, str]:
    """One or two options, asked for in any order and always written in the table's."""
    order = sorted(range(len(RUN_OPTIONS)), key=lambda _: generator.random())[: 1 + int(generator.random() * 2)]
    asks = [_pick(generator, RUN_OPTIONS[i][1:]) for i in order]
    options = [RUN_OPTIONS[i][0] for i in sorted(order)]
    return " ".join([_pick(generator, RUN_ASKS), *asks]), " ".join(["docker run", *options, "{image}"])


def _pick(generator: random.Random, choices: Sequence[T]) -> T:
    # Only random() is promised to stay the same from one Python to the next.
    return choices[int(generator.random() * len(choices))]


def _row(ask: str, command: str) -> dict:
    return {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": command}]}
