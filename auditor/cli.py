"""Command line: one command per task, no logic of its own. Exit codes: 0 clean, 1 violation or not eligible,
2 usage, 3 needs review, 4 could not be audited; of several reviews the gravest counts."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from auditor import __version__
from auditor.errors import AuditorError

FORMATS = ("html", "json", "markdown", "sarif")


class _Group(click.Group):
    """Shows an `AuditorError` as one message and exits with 4."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except AuditorError as error:
            click.echo(f"auditor: {error}", err=True)
            ctx.exit(4)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="auditor")
def main() -> None:
    """Review Parameter Golf submissions: verdicts with evidence."""


@main.command()
@click.argument("targets", nargs=-1)
@click.option(
    "--repo",
    type=click.Path(path_type=Path),
    envvar="PARAMETER_GOLF_REPO",
    help="Clone of the public repository (bare or not) in which PR numbers and refs are looked up.",
)
@click.option("--list", "list_file", type=click.Path(path_type=Path), help="File with one target a line.")
@click.option("--main", "main_branch", is_flag=True, help="Review every record folder on the main branch.")
@click.option("--all", "everything", is_flag=True, help="Review every pull request head of the clone.")
@click.option("--fetch", is_flag=True, help="Fetch a pull request from the clone's remote when it is absent.")
@click.option(
    "--description",
    type=click.Path(path_type=Path),
    help="Title and text of the pull request, saved to a file: claims made only there are compared too.",
)
@click.option(
    "--reproduction",
    type=click.Path(path_type=Path, exists=True),
    help="Folder of a re-run by `auditor reproduce` (default: looked for in the working directory).",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write reports into this folder.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(FORMATS),
    help="Which reports to write into --out (default: all four).",
)
@click.option("--jsonl", type=click.Path(path_type=Path), help="Append one line per review to this file.")
@click.option("--resume", is_flag=True, help="With --jsonl: skip targets that the file already holds.")
@click.option("--run/--no-run", default=None, help="Run the submission on the CPU in the sandbox, or leave that out.")
@click.option("-v", "--verbose", is_flag=True, help="Show passed rules too.")
@click.option("-q", "--quiet", is_flag=True, help="One line per review.")
def review(targets: tuple[str, ...], **options: object) -> None:
    """Review TARGETS: folders, PR numbers, refs or ranges base..head.

    \b
    auditor review 861 --repo ~/parameter-golf
    auditor review records/track_10min_16mb/my_run
    auditor review --main --repo ~/parameter-golf --jsonl main.jsonl
    """
    from auditor.commands.review import Options, run

    if not (targets or options["list_file"] or options["main_branch"] or options["everything"]):
        raise click.UsageError("name at least one target, or use --list, --main or --all")
    sys.exit(run(targets, Options(**options)))


@main.command()
@click.argument("target")
@click.option(
    "--repo",
    type=click.Path(path_type=Path),
    envvar="PARAMETER_GOLF_REPO",
    help="Clone in which a PR number or ref is looked up.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the layers into this folder.")
@click.option("--outline", is_flag=True, help="Print only the outline, not the source.")
def unpack(target: str, repo: Path | None, out: Path | None, outline: bool) -> None:
    """Print or write the readable source inside TARGET (a script, a folder or a PR number); nothing is executed."""
    from auditor.commands.unpack import run

    sys.exit(run(target, repo=repo, out=out, outline_only=outline))


@main.command()
@click.argument("what")
@click.argument("place", required=False)
@click.option(
    "--repo",
    type=click.Path(path_type=Path),
    envvar="PARAMETER_GOLF_REPO",
    help="Clone in which a PR number or ref is looked up.",
)
def explain(what: str, place: str | None, repo: Path | None) -> None:
    """Explain a RULE, or what the analysis knows at a line: PATH:LINE, or TARGET and a line in it.

    \b
    auditor explain PG-C3-score-first            text, sources, precedents, legal and illegal examples
    auditor explain my_run/train_gpt.py:184      values, phase, loops, settings, events, rules
    auditor explain 861 184 --repo ~/parameter-golf
    """
    from rich.console import Console

    from auditor.commands import explain as command

    if place is not None or command.is_place(what):
        sys.exit(command.run(what, place, repo))
    import rules
    from rules.explain import render_rule

    render_rule(rules.rule(what), Console())


@main.command("rules")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def list_rules(as_json: bool) -> None:
    """List the rules: id, severity, tracks, since when, who decides."""
    from auditor.commands.rules import run

    run(as_json)


@main.command()
@click.argument("target")
@click.option(
    "--repo",
    type=click.Path(path_type=Path),
    envvar="PARAMETER_GOLF_REPO",
    help="Clone in which a PR number or ref is looked up.",
)
@click.option("--seconds", default=60.0, show_default=True, help="CPU time of one attempt.")
def smoke(target: str, repo: Path | None, seconds: float) -> None:
    """Run TARGET at reduced scale on the CPU, in the sandbox, and show which scores its headline consists of."""
    from auditor.commands.smoke import run

    sys.exit(run(target, repo, seconds))


@main.command()
@click.argument("target")
@click.option("--seeds", required=True, help="Seeds to run, separated by commas.")
@click.option("--gpus", default=8, show_default=True, help="GPUs of a full-scale run.")
@click.option("--ranks", type=int, help="Processes (default: one a GPU; one in a rehearsal).")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder with datasets/ and tokenizers/.")
@click.option("--scale", type=click.Choice(["full", "small"]), default="full", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for logs, artifacts and the report.")
@click.option("--dry-run", is_flag=True, help="Show what would run and stop.")
@click.option("--retry", is_flag=True, help="Run seeds again that failed before.")
@click.option("--no-rescore", is_flag=True, help="Leave out the trusted score of the artifacts (full scale).")
@click.option("--follow", is_flag=True, help="Trusted score with the evaluation repeated too (full scale; hours).")
@click.option("--limit-minutes", type=float, help="Wall time of one seed before it is ended.")
@click.option("--gpu-hour-price", type=float, help="Shows the expected cost.")
@click.option(
    "--cluster",
    type=click.Choice(["slurm", "local", "debug"]),
    help="Hand the re-run in as a job through submitit; local and debug need no cluster.",
)
@click.option("--partition", default="", help="SLURM partition of the job.")
@click.option("--account", default="", help="SLURM account of the job.")
@click.option("--set", "variables", multiple=True, metavar="NAME=VALUE", help="Variable for the submission.")
@click.option("--repo", type=click.Path(path_type=Path), envvar="PARAMETER_GOLF_REPO", help="Clone for PR numbers.")
def reproduce(target: str, **options: object) -> None:
    """Run TARGET again and compare what it prints and claims with what is measured from outside.

    \b
    auditor reproduce 861 --seeds 42,314,2025 --data ~/parameter-golf/data
    auditor reproduce my_run --seeds 1,2,3 --scale small --ranks 2
    """
    from auditor.commands.reproduce import Options, run

    sys.exit(run(target, Options(**options)))


@main.command()
@click.argument("target")
@click.option("--artifact", type=click.Path(path_type=Path), required=True, help="Compressed model the run wrote.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Folder with datasets/ and tokenizers/.")
@click.option("--scale", type=click.Choice(["full", "small"]), default="full", show_default=True)
@click.option("--stride", "strides", multiple=True, type=int, help="Sliding windows to score with, besides whole rows.")
@click.option(
    "--follow/--no-follow",
    default=None,
    help="Repeat the program's own evaluation, training included, by the trusted loop (default: at small scale).",
)
@click.option("--limit-minutes", type=float, help="Wall time before it is ended (default: 20).")
@click.option("--set", "variables", multiple=True, metavar="NAME=VALUE", help="Variable for the submission.")
@click.option("--repo", type=click.Path(path_type=Path), envvar="PARAMETER_GOLF_REPO", help="Clone for PR numbers.")
def rescore(target: str, artifact: Path, strides: tuple[int, ...], **options: object) -> None:
    """Score an artifact of TARGET: its own code loads it, the reference evaluator takes every loss."""
    from auditor.commands.reproduce import Options
    from auditor.commands.reproduce import rescore as run

    sys.exit(run(target, artifact, Options(**options), strides))


@main.command()
@click.option("--check", is_flag=True, help="Try to escape and print what held.")
def sandbox(check: bool) -> None:
    """Show which sandbox layers this machine offers; with --check, try the escapes."""
    from rich.console import Console

    from auditor.commands import sandbox as command

    sys.exit(command.check(Console()) if check else command.layers(Console()))


if __name__ == "__main__":
    main()
