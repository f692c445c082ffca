//! double
