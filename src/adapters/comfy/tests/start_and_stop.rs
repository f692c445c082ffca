//! start_and_stop
