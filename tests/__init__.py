"""Tests, and the tools that they need."""

import signal
import threading

# In the background of a shell SIGINT is ignored, and what we start would inherit that. A handler is not inherited.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
