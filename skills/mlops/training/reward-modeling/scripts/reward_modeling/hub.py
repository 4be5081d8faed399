"""Does the hub answer? Asked once, before libraries that would try each file for 24 seconds."""

import functools


@functools.cache
def answers(name: str, kind: str = "model") -> bool:
  """kind: model or dataset. If not, libraries read from the cache alone from here on."""
  from huggingface_hub import HfApi, constants
  from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

  try:
    HfApi().repo_info(name, repo_type=kind, timeout=10)
  except OfflineModeIsEnabled:
    return False
  except (HfHubHTTPError, HFValidationError):  # whoever loads it says more
    return True
  except Exception:  # of the HTTP client, which is another one in other versions
    constants.HF_HUB_OFFLINE = True
    return False
  return True
