"""What the environment says. The model is set here and nowhere else, as in production."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROMPT = str(Path(__file__).with_name("system_prompt.md"))


@dataclass(frozen=True)
class Settings:
    """Settings of the service; `from_environment` names the variables."""

    ollama_url: str
    ollama_model: str
    system_prompt: str
    data: Path
    seed_file: Path | None
    host: str = "127.0.0.1"
    port: int = 8000
    num_predict: int = 6000
    llm_timeout_s: float = 120
    """After this long an answer counts as failed, and the item as done."""
    stop_patience_s: float = 60
    """How long a stop waits for work under way, as gunicorn does; what then remains is lost."""
    slow_start_s: float = 0
    """Fault: seconds before the port is open."""
    crash_first_starts: int = 0
    """Fault: that many first starts exit with 3 after a few healthy answers."""

    item_edits: str = ""
    """PATCH or PUT: items can be written by it, which production is not known to allow."""
    item_edit_fields: tuple[str, ...] = ()
    """What can be written so."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Read OLLAMA_URL, OLLAMA_MODEL and the rest, each with a default that works locally."""
        prompt, seed = env.get("SYSTEM_PROMPT_FILE", _PROMPT), env.get("SEED_FILE")
        return cls(
            ollama_url=env.get("OLLAMA_URL", "http://127.0.0.1:11434").rstrip("/"),
            ollama_model=env.get("OLLAMA_MODEL", "qwen3:14b-q8_0"),
            system_prompt=Path(prompt).read_text(encoding="utf-8").strip(),
            data=Path(env.get("DATA_DIR", "/data")),
            seed_file=Path(seed) if seed else None,
            host=env.get("HOST", cls.host),
            port=int(env.get("PORT", cls.port)),
            num_predict=int(env.get("NUM_PREDICT", cls.num_predict)),
            llm_timeout_s=float(env.get("LLM_TIMEOUT_S", cls.llm_timeout_s)),
            stop_patience_s=float(env.get("STOP_PATIENCE_S", cls.stop_patience_s)),
            slow_start_s=float(env.get("SLOW_START_S", cls.slow_start_s)),
            crash_first_starts=int(env.get("CRASH_FIRST_STARTS", cls.crash_first_starts)),
            item_edits=env.get("ITEM_EDITS", cls.item_edits),
            item_edit_fields=tuple(env.get("ITEM_EDIT_FIELDS", "").split()),
        )
