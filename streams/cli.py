"""The command `trustwatch`.

Exit codes: 0 fine, 1 the check or run failed, 2 bad usage or configuration (the message names the knob). Bad input
never ends in a traceback. What a program reads goes to standard output as JSON, progress to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import yaml
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.table import Table

from streams.errors import ConfigError, TrustwatchError, UsageError
from streams.settings import Settings, load_settings

if TYPE_CHECKING:
    from dashboards.grafana import Change, Grafana
    from streams.backtest import Report
    from streams.events import Event
    from streams.recorded import RecordedFile
    from streams.simulate import Truth
    from streams.watch import Observer

# Commands import what they need when they run: `trustwatch --help` should not load Faust and River.

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)
DAY_S = 86_400.0
LOG_LEVELS = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"])
FILES = click.Path(exists=True, dir_okay=False, path_type=Path)


def main() -> None:
    """Entry point: errors of ours become one line and an exit code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except (ConfigError, UsageError) as error:
        err.print(f"trustwatch: {error}", style="red", highlight=False, markup=False)
        sys.exit(2)
    except TrustwatchError as error:
        err.print(f"trustwatch: {error}", style="red", highlight=False, markup=False)
        sys.exit(1)
    sys.exit(code or 0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trustwatch")
def cli() -> None:
    """Event-driven streaming monitor of customer trust."""


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="end with one JSON object instead of a table")
@click.option("--keep", is_flag=True, help="stay up after the summary, until Ctrl-C")
def demo(as_json: bool, keep: bool) -> int:
    """See it work: embedded broker, sample journeys with known erosion, the real worker, findings. Under a minute."""
    from streams.demo import run_demo

    return run_demo(as_json=as_json, keep=keep)


@cli.command()
@click.option("--no-ingest", is_flag=True, help="leave the ingest stage to `trustwatch ingest`")
@click.option("--loglevel", default="INFO", show_default=True, type=LOG_LEVELS)
def worker(no_ingest: bool, loglevel: str) -> int:
    """Run the live worker until it is told to stop (SIGTERM, Ctrl-C)."""
    from streams.app import run

    return run(load_settings(), ingest=not no_ingest, loglevel=loglevel)


@cli.command()
@click.option("--loglevel", default="INFO", show_default=True, type=LOG_LEVELS)
def ingest(loglevel: str) -> int:
    """Run the ingest stage alone, to scale it apart."""
    from streams.app import run

    return run(load_settings(), stages=False, loglevel=loglevel)


@cli.command()
@click.option("--loglevel", default="INFO", show_default=True, type=LOG_LEVELS)
def collect(loglevel: str) -> int:
    """Take webhooks and the calls of SDKs over HTTP and write them to the raw topics, until told to stop."""
    from streams.collect.app import run

    return run(load_settings(), loglevel=loglevel)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=FILES)
@click.option("--format", "fmt", help="wire format; default: told apart by shape")
@click.option("--map", "mapping", type=FILES, help="mapping YAML of CSV and Parquet files")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), help="event seconds per second; default: full speed"
)
@click.option("--topic", help="raw topic; default: the first of topics.raw")
@click.option(
    "--close/--no-close", default=True, show_default=True, help="end with a punctuation that closes all sessions"
)
def replay(
    files: tuple[Path, ...], fmt: str | None, mapping: Path | None, speed: float | None, topic: str | None, close: bool
) -> int:
    """Send recorded events to Kafka, in event-time order."""
    from streams.replay import Replay

    settings = load_settings()
    _check_format(fmt)
    target = topic or settings.topics.raw[0].name
    with _progress("replay", files) as on_bytes:
        recorded = _recorded(files, fmt, mapping, on_bytes)
        done = Replay(settings, speed, close=close).run([(file, target) for file in recorded])
    err.print(f"{done.messages:,} messages to {target} in {done.seconds:.1f} s", highlight=False)
    return 0


@cli.command()
@click.argument("files", nargs=-1, required=True, type=FILES)
@click.option("--format", "fmt", help="wire format; default: told apart by shape")
@click.option("--map", "mapping", type=FILES, help="mapping YAML of CSV and Parquet files")
@click.option("--least", type=click.IntRange(min=5), default=50, show_default=True,
              help="different values that make a segment variable")  # fmt: skip
def paths(files: tuple[Path, ...], fmt: str | None, mapping: Path | None, least: int) -> int:
    """Recorded events to path templates: proposes what to configure as privacy.paths."""
    from streams.paths import learn

    settings = load_settings()
    _check_format(fmt)
    with _progress("paths", files) as on_bytes:
        learned = learn(settings, _recorded(files, fmt, mapping, on_bytes), fmt, least)
    err.print(f"{len(learned)} variable segments; add them to what privacy.paths has", highlight=False)
    click.echo(yaml.safe_dump({"privacy": {"paths": [found.pattern for found in learned]}}, sort_keys=False), nl=False)
    return 0


@cli.command()
@click.argument("files", nargs=-1, required=True, type=FILES)
@click.option("--format", "fmt", help="wire format; default: told apart by shape")
@click.option("--map", "mapping", type=FILES, help="mapping YAML of CSV and Parquet files")
@click.option("--detectors", "only", help="comma-separated names; default: all")
@click.option("--set", "sets", multiple=True, metavar="DETECTOR.PARAM=VALUE", help="a detector's parameter; repeatable")
@click.option(
    "--out", "out_file", type=click.Path(dir_okay=False, path_type=Path), help="write findings, JSON, one a line"
)
@click.option("--json", "as_json", is_flag=True, help="end with one JSON object")
@click.option("--explain", metavar="ID|all|first", help="draw why there is a finding, one PNG each; runs the files a"
              " second time; of an id its beginning will do")  # fmt: skip
@click.option("--explain-out", type=click.Path(file_okay=False, path_type=Path), default=Path("report"),
              show_default=True, help="folder of the PNGs")  # fmt: skip
def backtest(
    files: tuple[Path, ...], fmt: str | None, mapping: Path | None, only: str | None, sets: tuple[str, ...],
    out_file: Path | None, as_json: bool, explain: str | None, explain_out: Path,
) -> int:  # fmt: skip
    """Recorded events to findings, in one process and without Kafka."""
    settings = load_settings(**({"detectors": parse_sets(sets)} if sets else {}))
    _check_format(fmt)
    if explain is not None:
        _check_drawing()
    names = [name.strip() for name in only.split(",")] if only else None

    def run(title: str, observer: Observer | None = None) -> Report:
        from streams.backtest import Backtest

        with _progress(title, files) as on_bytes:
            return Backtest(settings, names, fmt, observer).run(_recorded(files, fmt, mapping, on_bytes))

    report = run("backtest")
    if out_file:
        from streams.findings import public

        _write(out_file, b"".join(msgspec.json.encode(public(finding)) + b"\n" for finding in report.findings))
    if as_json:
        click.echo(msgspec.json.encode(report.summary))
    else:
        _show_findings(report.findings)
        _show_pairs(msgspec.to_builtins(report.summary))
    if explain is not None:
        _explain(report, explain, explain_out, run)
    return 0


def _list_scenarios(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from streams.scenarios import SCENARIOS

    for name, scenario in SCENARIOS.items():
        click.echo(f"{name:<20} {', '.join(scenario.expected) or '-':<36} {scenario.about}")
    context.exit()


@cli.command()
@click.option("--out", "out_file", required=True, type=click.Path(dir_okay=False, path_type=Path),
              help="events, native JSON Lines (.gz packs them); the truth goes beside it")  # fmt: skip
@click.option("--scenario", help="a scenario with its own length, volumes and erosions; see --list-scenarios")
@click.option("--list-scenarios", is_flag=True, is_eager=True, expose_value=False, callback=_list_scenarios,
              help="scenarios: name, who should find it, what happens")  # fmt: skip
@click.option("--erosion", "specs", multiple=True, metavar="SPEC", help="KIND[:label=value,…]@DAY[xSIZE]; repeatable")
@click.option(
    "--days", default=14.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="days to simulate"
)
@click.option("--seed", default=1, show_default=True, help="same seed, same events")
@click.option("--sessions", default=500, show_default=True, type=click.IntRange(min=1), help="web sessions a day")
@click.option("--leads", default=160, show_default=True, type=click.IntRange(min=0), help="leads a day")
@click.option("--mails", default=0, show_default=True, type=click.IntRange(min=0), help="mails a day")
@click.option("--orders", default=0, show_default=True, type=click.IntRange(min=0), help="orders a day")
@click.pass_context
def simulate(context: click.Context, out_file: Path, scenario: str | None, specs: tuple[str, ...], days: float,
             seed: int, sessions: int, leads: int, mails: int, orders: int) -> int:  # fmt: skip
    """Write journeys, leads, mails and orders with known erosion, and the ground truth beside them."""
    from streams.simulate import parse_erosion, write
    from streams.simulate import simulate as events_of

    if scenario is not None:
        return _simulate_scenario(context, scenario, out_file, seed)
    erosions = [parse_erosion(spec) for spec in specs]
    events = events_of(days, seed, erosions, sessions, leads, mails_per_day=mails, orders_per_day=orders)
    columns = (TextColumn("simulate"), BarColumn(), TextColumn("day {task.completed:.0f} of {task.total:.0f}"))
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("simulate", total=days)
        tracked = _by_day(events, lambda done: progress.update(task, completed=done))
        truth = write(tracked, out_file, days=days, seed=seed, erosions=erosions)
    return _tell_simulated(truth, out_file)


def _simulate_scenario(context: click.Context, name: str, out_file: Path, seed: int) -> int:
    from streams.scenarios import write_scenario

    own = ("specs", "days", "sessions", "leads", "mails", "orders")
    if given := [each for each in own if context.get_parameter_source(each) is ParameterSource.COMMANDLINE]:
        option = "erosion" if given[0] == "specs" else given[0]
        raise UsageError(f"--{option}: a scenario has its own; leave out --{option} or --scenario")
    return _tell_simulated(write_scenario(name, out_file, seed), out_file)


def _tell_simulated(truth: Truth, out_file: Path) -> int:
    about = f"{truth.events:,} events, {truth.persons:,} people, {len(truth.erosions)} erosions: {out_file}"
    err.print(about, highlight=False)
    return 0


@cli.group()
def topics() -> None:
    """Make or check the Kafka topics."""


@topics.command("create")
def topics_create() -> int:
    """Make the topics that are missing, then check all."""
    from streams.topics import Topics

    with Topics(load_settings()) as admin:
        for name in admin.create():
            click.echo(f"created {name}")
        return _tell_wrong(admin.check(), "topics are as configured")


@topics.command("check")
def topics_check() -> int:
    """Compare the topics with the configuration; says the fix of what differs."""
    from streams.topics import Topics

    with Topics(load_settings()) as admin:
        return _tell_wrong(admin.check(), "topics are as configured")


@topics.command("fix")
def topics_fix() -> int:
    """Set what differs in our topics' settings, then check all; partitions, replicas and your topics stay."""
    from streams.topics import Topics

    with Topics(load_settings()) as admin:
        for change in admin.fix():
            click.echo(f"set {change}")
        return _tell_wrong(admin.check(), "topics are as configured")


@cli.command("detectors")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def list_detectors(as_json: bool) -> int:
    """List the detectors with their parameters and alerts."""
    from streams.units import Plan

    plan = Plan(load_settings()).detectors
    described = {
        name: {
            "title": cls.title, "unit": cls.unit, "alert": msgspec.to_builtins(cls.alert),
            "parameters": {
                key: {"value": getattr(plan.params[name], key), "description": field.description or ""}
                for key, field in type(plan.params[name]).model_fields.items()
            },
        }
        for name, cls in plan.classes.items()
    }  # fmt: skip
    if as_json:
        click.echo(msgspec.json.encode(described))
        return 0
    for name, detector in described.items():
        table = Table("parameter", "value", "meaning", title=f"{name}: {detector['title']}", title_justify="left")
        for key, parameter in detector["parameters"].items():
            table.add_row(key, str(parameter["value"]), parameter["description"])
        out.print(table)
    return 0


@cli.command("new-detector")
@click.argument("name")
def new_detector(name: str) -> int:
    """Write a detector module, its test and the cases of its alert, ready to run."""
    from detectors._scaffold import write

    if not Path("detectors/_base.py").is_file():
        raise UsageError(
            "new-detector writes into a checkout of trustwatch: run it in the folder that holds detectors/"
        )
    try:
        for path in write(name, Path.cwd()):
            click.echo(f"wrote {path}")
    except ValueError as error:
        raise UsageError(str(error)) from error
    return 0


@cli.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
@click.pass_context
def state(context: click.Context, as_json: bool) -> int | None:
    """What the live line knows, from its checkpoints: accounting, findings, digest."""
    from streams.state import read_state

    if context.invoked_subcommand is not None:
        return None
    found = read_state(load_settings())
    if as_json:
        click.echo(msgspec.json.encode(found))
        return 0
    _show_findings(found.findings)
    _show_pairs({**found.accounting, "dead_letters": found.dead_letters, "open_sessions": found.open_sessions,
                 "pending_events": found.pending_events, "state_digest": found.state_digest})  # fmt: skip
    return 0


@state.command("reset")
@click.option("--stage", "stages", multiple=True, type=click.Choice(["sessionize", "watch"]), help="default: both")
@click.option("--partition", "partitions", multiple=True, type=click.IntRange(min=0), help="repeatable; default: all")
@click.option("--yes", is_flag=True, help="do it")
def state_reset(stages: tuple[str, ...], partitions: tuple[int, ...], yes: bool) -> int:
    """Delete checkpoints: the next start rebuilds that state from the log, as far as its retention reaches."""
    from streams.state import reset_state

    if not yes:
        raise UsageError("state reset forgets what the log no longer holds (baselines, open sessions); say --yes")
    for name in reset_state(load_settings(), stages, partitions):
        click.echo(f"deleted the checkpoint in {name}")
    return 0


@cli.group()
def guardrails() -> None:
    """KPIs with an owner, a limit, a budget of bad events and an action: check, show and compare their files."""


@guardrails.command("check")
@click.argument("files", nargs=-1, type=FILES)
def guardrails_check(files: tuple[Path, ...]) -> int:
    """Read files of guardrails, by default the configured one; names file, guardrail and key of what is wrong."""
    from streams.guardrail_cli import checked

    for path, found in checked(load_settings(), files):
        click.echo(f"{path}: {len(found)} guardrails are fine")
    return 0


@guardrails.command("show")
@click.argument("file", required=False, type=FILES)
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def guardrails_show(file: Path | None, as_json: bool) -> int:
    """Who owns what, how much may go wrong, and what is done first."""
    from streams.guardrail_cli import checked, table

    ((_, found),) = checked(load_settings(), (file,) if file else ())
    if as_json:
        click.echo(msgspec.json.encode({one.name: one.model_dump(mode="json") for one in found}))
    else:
        out.print(table(found))
    return 0


@guardrails.command("diff")
@click.argument("old", type=FILES)
@click.argument("new", type=FILES)
@click.option("--strict", is_flag=True, help="end with 1 if anything was loosened")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def guardrails_diff(old: Path, new: Path, strict: bool, as_json: bool) -> int:
    """What has changed in meaning from one file to another."""
    from streams.guardrails import compare, load_guardrails

    changes = compare(load_guardrails(old), load_guardrails(new))
    loosened = any(change.loosened for change in changes)
    if as_json:
        click.echo(msgspec.json.encode({"loosened": loosened, "changes": changes}))
    else:
        for change in changes:
            click.echo(f"{'LOOSER' if change.loosened else '      '} {change.name}: {change.what}")
    return int(strict and loosened)


@guardrails.command("export")
@click.argument("file", required=False, type=FILES)
def guardrails_export(file: Path | None) -> int:
    """Guardrails as OpenSLO v1 documents, on standard output; what does not meet is said on standard error."""
    from streams.guardrail_cli import checked
    from streams.guardrail_openslo import export

    ((_, found),) = checked(load_settings(), (file,) if file else ())
    documents, unmet = export(found)
    for sentence in unmet:
        err.print(sentence, highlight=False, markup=False)
    click.echo(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120), nl=False)
    return 0


@guardrails.command("import")
@click.argument("file", type=FILES)
def guardrails_import(file: Path) -> int:
    """OpenSLO v1 documents that `export` wrote, or the like, as guardrails; what does not meet is said."""
    from streams.guardrail_openslo import take_in

    found, unmet = take_in(file)
    for sentence in unmet:
        err.print(sentence, highlight=False, markup=False)
    click.echo(yaml.safe_dump({"guardrails": found}, sort_keys=False, allow_unicode=True, width=120), nl=False)
    return int(not found)


@cli.command()
@click.argument("what", metavar="ID")
@click.option("--note", default="", help="what you do about it; no names of people: what looks personal is redacted")
@click.option("--time", "when", help="when, ISO 8601; default: now")
def ack(what: str, note: str, when: str | None) -> int:
    """Say that you act on a finding, by its id, or on a guardrail that is hit, by its name; the first time counts."""
    from streams.said import say

    click.echo(say(load_settings(), "acknowledged", what, note, _milliseconds(when) / 1000))
    return 0


@cli.command()
@click.argument("name")
@click.option("--why", default="", help="what is wrong with the KPI; what looks personal is redacted")
@click.option("--resolve", is_flag=True, help="it is questioned no more")
@click.option("--time", "when", help="when, ISO 8601; default: now")
def dispute(name: str, why: str, resolve: bool, when: str | None) -> int:
    """Question a guardrail: it is shown as such, and its pages become tickets, until --resolve."""
    from streams.guardrail_cli import require_known
    from streams.said import say

    settings = load_settings()
    if bool(why) == resolve:
        raise UsageError("dispute: say either --why, to question it, or --resolve")
    require_known(settings, name)
    kind = "dispute_resolved" if resolve else "disputed"
    click.echo(say(settings, kind, name, why, _milliseconds(when) / 1000))
    return 0


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def doctor(as_json: bool) -> int:
    """Check broker, topics, lag, Prometheus, Grafana and clock: what is wrong, and the fix."""
    from streams.doctor import examine

    checks = examine(load_settings())
    failed = any(check.result == "fail" for check in checks)
    if as_json:
        click.echo(msgspec.json.encode({"ok": not failed, "checks": checks}))
    else:
        marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]", "skip": "[dim]skip[/]"}
        for check in checks:
            out.print(f"{marks[check.result]:>6} [bold]{check.name}[/] ", end="")
            out.print(check.message + (f". Fix: {check.fix}" if check.fix else ""), markup=False, highlight=False)
    return int(failed)


@cli.group()
def grafana() -> None:
    """Put our dashboards and alerts into a Grafana, and deploys on its dashboards."""


@grafana.command("sync")
@click.option("--dry-run", is_flag=True, help="show what would change, change nothing")
@click.option("--check", is_flag=True, help="the same, and end with 1 if anything would change")
@click.option("--prune", is_flag=True, help="remove what is ours and in no file any more")
@click.option("--editable", is_flag=True, help="leave alerting open to changes in Grafana's pages, which the next sync"
              " undoes; default: locked there")  # fmt: skip
@click.option("--take-policy", is_flag=True, help="replace the notification policy although somebody else made it")
@click.option("--secrets", is_flag=True, help="write contact points again, whose secrets Grafana does not show")
@click.option("--prometheus-url", help="of Prometheus, as Grafana reaches it; default: monitoring.prometheus_url")
@click.option("--json", "as_json", is_flag=True, help="one JSON object")
def grafana_sync(
    dry_run: bool, check: bool, prune: bool, editable: bool, take_policy: bool, secrets: bool,
    prometheus_url: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Folder, data source, dashboards, alert rules, contact points, policy, templates; shows each difference."""
    from dashboards._provisioned import Files
    from dashboards.sync import Sync, require_ours

    settings = load_settings()
    files = Files(prometheus_url=prometheus_url or settings.monitoring.prometheus_url)
    sync = Sync(_grafana(settings), files.objects(), editable=editable, prune=prune, take_policy=take_policy,
                secrets=secrets)  # fmt: skip
    changes = sync.plan()
    if not as_json:
        _show_changes(changes)
    if not (dry_run or check):
        changes = list(sync.run())
    done = [change for change in changes if change.action in ("created", "changed", "removed")]
    if as_json:
        click.echo(msgspec.json.encode({"applied": not (dry_run or check), "changes": len(done), "objects": changes}))
    else:
        err.print(f"{len(done)} {'would change' if dry_run or check else 'changed'}, {len(changes)} looked at",
                  highlight=False)  # fmt: skip
    require_ours(changes)
    return int(check and bool(done))


@grafana.command("annotate")
@click.option("--what", required=True, help="what happened, such as: shop 4.2 is live")
@click.option("--tag", "tags", multiple=True, help="beside `trustwatch` and `deploy`; repeatable")
@click.option("--time", "when", help="when, ISO 8601; default: now")
@click.option("--dashboard", help="uid of the one dashboard to show it on; default: all")
@click.option("--event", is_flag=True, help="it is no deploy: only your tags")
def grafana_annotate(what: str, tags: tuple[str, ...], when: str | None, dashboard: str | None, event: bool) -> int:
    """Show a deploy on the dashboards; the same one twice is shown once."""
    from dashboards.grafana import DEPLOY_TAG, Annotation

    tags = tags if event else (DEPLOY_TAG, *tags)
    wanted = Annotation(None, _milliseconds(when), None, what, tags, dashboard)
    done = _grafana(load_settings()).annotate(wanted)
    err.print("Grafana knew it" if done == "known" else done, highlight=False)
    return 0


def parse_sets(sets: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """`--set detector.param=value` as nested settings; values are YAML.

    >>> parse_sets(("early_dropoff.min_n=12", "early_dropoff.stages=[evaluate]"))
    {'early_dropoff': {'min_n': 12, 'stages': ['evaluate']}}

    Raises:
        UsageError: not of that form.
    """
    nested: dict[str, dict[str, Any]] = {}
    for text in sets:
        name, equals, value = text.partition("=")
        detector, dot, parameter = name.partition(".")
        if not (equals and dot and detector and parameter):
            raise UsageError(f"--set {text!r}: write DETECTOR.PARAM=VALUE")
        try:
            nested.setdefault(detector, {})[parameter] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UsageError(f"--set {text!r}: the value is no YAML: {error}") from error
    return nested


def _grafana(settings: Settings) -> Grafana:
    from dashboards.grafana import Grafana

    where = settings.monitoring
    if where.grafana_api is None or where.grafana_token is None:
        given = {"grafana_url": where.grafana_api, "grafana_token": where.grafana_token}
        missing = [f"monitoring.{name}" for name, value in given.items() if value is None]
        raise ConfigError(f"grafana needs {' and '.join(missing)}. Fix: set {'them' if len(missing) > 1 else 'it'}")
    return Grafana(where.grafana_api, where.grafana_token.get_secret_value(), 10.0, tries=4)


def _milliseconds(when: str | None) -> int:
    try:
        time = datetime.fromisoformat(when) if when else datetime.now(UTC)
    except ValueError as error:
        raise UsageError(f"--time {when!r}: write ISO 8601, such as 2026-03-01T12:00:00Z") from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _show_changes(changes: list[Change]) -> None:
    styles = {"created": "green", "changed": "yellow", "removed": "red", "left over": "magenta",
              "kept by others": "bold red"}  # fmt: skip
    for change in changes:
        out.print(f"{change.action:>14}", style=styles.get(change.action, "dim"), end="  ")
        out.print(f"{change.kind} {change.name}", markup=False, highlight=False)
        if change.diff:
            out.print(change.diff, markup=False, highlight=False)


def _recorded(files: tuple[Path, ...], fmt: str | None, mapping: Path | None, on_bytes: Any) -> list[RecordedFile]:
    from streams.recorded import RecordedFile, load_mapping

    columns = load_mapping(mapping) if mapping else None
    return [RecordedFile(path, fmt, columns, on_bytes) for path in files]


def _check_drawing() -> None:
    try:
        import matplotlib  # noqa: F401  (an optional dependency)
    except ImportError as error:
        raise UsageError("--explain needs matplotlib: pip install 'trustwatch[explain]'") from error


def _explain(report: Report, wanted: str, folder: Path, run: Callable[[str, Observer], Report]) -> None:
    """Run the backtest once more, looking on, and draw what was asked for."""
    from streams.explain import Recorder, pick
    from streams.explain_plot import save
    from streams.findings import LEAST, is_small

    if not report.findings:
        err.print("--explain: there are no findings to explain", highlight=False)
        return
    chosen = [finding for finding in pick(report.findings, wanted) if not is_small(finding)]
    if not chosen:
        err.print(f"--explain: fewer than {LEAST} people, not drawn", highlight=False)
        return
    recorder = Recorder(chosen, report.summary.until)
    if run("explain", recorder).findings != report.findings:
        raise TrustwatchError("--explain: the second run found something else. Were the files changed meanwhile?")
    for track in recorder.tracks.values():
        try:
            path = save(track.finding, track.series(), folder, report.findings)
        except OSError as error:
            raise UsageError(f"--explain-out {folder}: cannot be written: {error.strerror}") from error
        err.print(f"wrote {path}", highlight=False, markup=False)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written: {error.strerror}") from error


def _by_day(events: Iterator[Event], tell: Callable[[float], object]) -> Iterator[Event]:
    """The same events; tells after every thousand how many days they span so far."""
    start = None
    for number, event in enumerate(events):
        start = event.time if start is None else start
        if number % 1000 == 0:
            tell((event.time - start) / DAY_S)
        yield event


def _check_format(fmt: str | None) -> None:
    from streams.formats import FORMATS

    if fmt is not None and fmt not in FORMATS:
        raise UsageError(f"--format {fmt}: unknown; known: {', '.join(sorted(FORMATS))}")


@contextmanager
def _progress(title: str, files: tuple[Path, ...]) -> Iterator[Any]:
    """A progress bar over the bytes of the files; gives the callback that moves it."""
    total = sum(path.stat().st_size for path in files)
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def _show_findings(findings: list[Any]) -> None:
    from streams.findings import public

    for finding in map(public, findings):
        style = "dim" if finding.resolved_at else "bold red" if finding.level == "alert" else "yellow"
        out.print(f"{'resolved' if finding.resolved_at else finding.level:>8}", style=style, end="  ")
        out.print(f"{finding.summary} Owner: {finding.owner}.", markup=False, highlight=False)


def _show_pairs(pairs: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in pairs.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    out.print(table)


def _tell_wrong(wrong: list[str], fine: str) -> int:
    for sentence in wrong:
        click.echo(f"FAIL {sentence}", err=True)
    if not wrong:
        click.echo(fine)
    return 1 if wrong else 0


__all__ = ["Settings", "cli", "main", "parse_sets"]

if __name__ == "__main__":
    main()
