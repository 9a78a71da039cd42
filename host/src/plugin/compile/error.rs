//! The errors of compiling.

use std::io;
use std::time::Duration;

/// Why a component could not be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// The compiler refuses the component, for this reason.
    #[error("{0}")]
    Refused(String),
    /// Compiling takes too long.
    #[error("compiling it had not ended after {0:?} (compiler.timeout)")]
    Timeout(Duration),
    /// Compiling takes too much memory.
    #[error("compiling it takes more than {0} bytes of memory (compiler.memory)")]
    Memory(usize),
    /// The machine code is too large.
    #[error("it compiles to more than {0} bytes (compiler.max_code)")]
    TooLarge(usize),
    /// A signal ended the compiler: from somebody, or from the system when it ran out of memory.
    #[error("the compiler was killed by signal {signal}")]
    Killed {
        /// The number of the signal.
        signal: i32,
    },
    /// The compiler failed.
    #[error("the compiler failed on it: {0}")]
    Crashed(String),
    /// The compiler compiles for another engine.
    #[error("the compiler has another version than the running gateway: restart the gateway")]
    Foreign,
    /// The compiler did not start, or the gateway cannot reach it.
    #[error("the compiler cannot be used: {0}")]
    Unusable(#[from] io::Error),
}

impl CompileError {
    /// Returns `true` if compiling may succeed at another time: the cause is not, or not surely, the component.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Killed { .. } | Self::Unusable(_))
    }
}
