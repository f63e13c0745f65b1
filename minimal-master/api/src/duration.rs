//! Durations as kubectl prints them: `5d3h`, `2m30s`.

use jiff::Timestamp;
