//! [`Builder`]: the settings of a process to be started.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::SpawnError;
use crate::launch::Settings;
use crate::process::Process;

/// Settings for a new process, where [`Process::spawn`] is not enough.
///
/// ```
/// use multiproc_process::{Builder, Exit};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// multiproc_process::init();
/// let process = Builder::new().name("adder").daemon(true).spawn(|(a, b): (u64, u64)| a + b, (20, 22))?;
/// assert_eq!(process.name(), Some("adder"));
/// assert_eq!(process.join()?, Exit::Value(42));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "call `spawn`"]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    /// Returns the settings that [`Process::spawn`] uses: no name, not a daemon, 30 seconds to start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name of the process in `ps` and `top` (the first 15 bytes), which [`name`](crate::name)
    /// returns in the process itself.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = Some(name.into());
        self
    }

    /// Sets whether the process is a daemon: whether it ends when this process ends.
    ///
    /// A daemon ends at once, whatever it is doing, and however this process ends: by returning from `main`
    /// as by SIGKILL. It does not end with the thread that started it, nor when its handle is dropped. A
    /// daemon that is stopped by SIGSTOP ends when it is continued.
    pub fn daemon(mut self, daemon: bool) -> Self {
        self.settings.daemon = daemon;
        self
    }

    /// Sets how long the child may take from its start to the call of its function; after that it is killed.
    ///
    /// A start takes milliseconds, unless the machine is overloaded or the child does not call
    /// [`init`](crate::init()).
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.settings.start_timeout = timeout;
        self
    }

    /// Calls `function(args)` in a new process with these settings, like [`Process::spawn`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Process::spawn`].
    pub fn spawn<A, R>(&self, function: fn(A) -> R, args: A) -> Result<Process<R>, SpawnError>
    where
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        Process::start(&self.settings, function, args)
    }
}
