//! The command line, tried as a user would, against a daemon that is played.

mod arguments;
mod env;
mod health;
mod keygen;
mod played;
mod secrets;
mod submit;
