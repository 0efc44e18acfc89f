//! Message and location of a panic in a child, as the parent gets them.

use std::any::Any;
use std::cell::RefCell;
use std::panic;

use ipc_channel::ipc::IpcSender;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::handoff::{self, Outcome};

/// A panic, as the hook saw it.
struct Panic {
    message: String,
    location: Option<String>,
}

thread_local! {
    static LAST_PANIC: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Installs a hook that records each panic, after the previous hook has printed it. Where a panic aborts the
/// process, the hook itself sends the panic: no later code runs.
pub(crate) fn install_hook<R>(outcome: &IpcSender<Outcome<R>>)
where
    R: Serialize + DeserializeOwned,
{
    let aborts = cfg!(panic = "abort").then(|| outcome.clone().to_opaque().to::<Outcome<()>>());
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        print(info);
        let message = text_of(info.payload());
        let location = info.location().map(ToString::to_string);
        if let Some(outcome) = &aborts {
            // An error means that the parent has ended: no process waits for the report.
            let _ = handoff::send(outcome, Outcome::Panic { message, location });
        } else {
            // Fails only in a thread that is being torn down; a panic of such a thread is not the function's.
            let _ = LAST_PANIC.try_with(|last| last.replace(Some(Panic { message, location })));
        }
    }));
}

/// Returns message and location of a panic that was caught. There is no location if the hook did not see this
/// panic, as after `resume_unwind`.
pub(crate) fn describe(payload: &(dyn Any + Send)) -> (String, Option<String>) {
    let message = text_of(payload);
    let seen = LAST_PANIC.take().filter(|seen| seen.message == message);
    (message, seen.and_then(|seen| seen.location))
}

/// Returns the message of a panic.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is no text")
        .to_owned()
}
