"""Records for TensorBoard's HParams tab: settings, metrics and curves of every cell. Neither torch nor TensorFlow."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from epsbench.harness.files import write_atomically
from epsbench.harness.report.exports.runs import TrackedRun, runs
from epsbench.harness.report.results.loading import Results
from epsbench.harness.report.results.units import plural

FILE = "events.out.tfevents.0.epsbench"
STATUS = {"ok": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE, "void": api_pb2.STATUS_FAILURE}


def write(results: Results, out: Path) -> str:
    """Write ``out/<id>/events…`` for every cell, and ``out/events…`` about the experiment."""
    tracked = runs(results)
    write_atomically(out / FILE, _events([(0, 0.0, [_experiment(tracked)])]))
    for run in tracked:
        write_atomically(out / run.id / FILE, _events(_of_run(run)))
    return f"{out}: {plural(len(tracked), 'run')}; `tensorboard --logdir {out}` shows them under HParams"


Step = tuple[int, float, list[Any]]
"""Step, seconds since 1970, and the values of a summary."""


def _of_run(run: TrackedRun) -> Iterable[Step]:
    start = plugin_data_pb2.SessionStartInfo(group_name=run.id, start_time_secs=run.started)
    for key, value in _hparams(run).items():
        if isinstance(value, bool):
            start.hparams[key].bool_value = value
        elif isinstance(value, str):
            start.hparams[key].string_value = value
        else:
            start.hparams[key].number_value = value
    end = plugin_data_pb2.SessionEndInfo(status=STATUS[run.status], end_time_secs=run.finished)
    yield 0, run.started, [_hparams_value(metadata.SESSION_START_INFO_TAG, session_start_info=start)]
    for name, values in run.curves.items():
        for step, value in enumerate(values, 1):
            yield step, run.started, [summary_pb2.Summary.Value(tag=name, simple_value=value)]
    for name, value in run.metrics.items():
        yield 0, run.finished, [summary_pb2.Summary.Value(tag=name, simple_value=value)]
    yield 0, run.finished, [_hparams_value(metadata.SESSION_END_INFO_TAG, session_end_info=end)]


def _hparams(run: TrackedRun) -> Mapping[str, str | int | float | bool]:
    return {**run.config, "cell": run.name, "status": run.status}


def _experiment(tracked: list[TrackedRun]) -> Any:
    keys = dict.fromkeys(key for run in tracked for key in _hparams(run))
    metrics = dict.fromkeys(name for run in tracked for name in run.metrics)
    info = api_pb2.Experiment(
        name="epsbench",
        hparam_infos=[api_pb2.HParamInfo(name=key, type=_type(tracked, key)) for key in keys],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in metrics],
    )
    return _hparams_value(metadata.EXPERIMENT_TAG, experiment=info)


def _type(tracked: list[TrackedRun], key: str) -> Any:
    """The type of a setting; a text where runs differ in it."""
    types = {type(_hparams(run)[key]) for run in tracked if key in _hparams(run)}
    if types == {bool}:
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_FLOAT64 if types <= {int, float} else api_pb2.DATA_TYPE_STRING


def _hparams_value(tag: str, **content: Any) -> Any:
    data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **content)
    about = metadata.create_summary_metadata(data)
    return summary_pb2.Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)


def _events(steps: Iterable[Step]) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    writer.write(event_pb2.Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    for step, time, values in steps:
        summary = summary_pb2.Summary(value=values)
        writer.write(event_pb2.Event(wall_time=time, step=step, summary=summary).SerializeToString())
    return buffer.getvalue()
