"""Contract tests for extensions and for edge itself: derive a test class from one and run it with pytest.

from edge.testing import TaskContract

class TestMyTask(TaskContract):
    task = MyTask()
    examples = (TaskExample(...),)
"""

from __future__ import annotations

from converters.testing.converter_contract import ConverterContract
from device_profiles.testing import ProfileContract
from edge.testing.task_view_contract import TaskViewContract
from runtimes.testing.engine_contract import EngineContract
from runtimes.testing.task_contract import TaskContract, TaskExample

__all__ = ["ConverterContract", "EngineContract", "ProfileContract", "TaskContract", "TaskExample", "TaskViewContract"]
