//! placeholder
pub struct ErrorChain<'a>(&'a dyn std::error::Error);
pub fn error_chain(error: &dyn std::error::Error) -> ErrorChain<'_> { ErrorChain(error) }
impl std::fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source { write!(f, ": {cause}")?; source = cause.source(); }
        Ok(())
    }
}
impl slog::Value for ErrorChain<'_> {
    fn serialize(&self, _: &slog::Record<'_>, key: slog::Key, s: &mut dyn slog::Serializer) -> slog::Result { s.emit_arguments(key, &format_args!("{self}")) }
}
