"""What every test shares."""

from hypothesis import HealthCheck, settings

# Time limits judge the machine, not the code: a busy one would fail now and then.
settings.register_profile("jarvis", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jarvis")
