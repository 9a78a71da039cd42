//! The locks between the note of a login or departure and its confirmation: of the registry's shards, and of the node.

use parking_lot::{Mutex, MutexGuard};

/// Locks. This is `mutex.lock()`, except that tests can explore in which order threads come here: see
/// `exchange/tests`.
pub(in crate::hub) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(test)]
    let_others_go_first(mutex);
    mutex.lock()
}

/// Within an exploration by shuttle, lets other threads run, and waits until the mutex is free. These threads take
/// turns on one thread of the system: to wait in `lock` would stop them all. At half of the locks the same thread goes
/// on, so that one may also get far while the others stand still.
#[cfg(test)]
fn let_others_go_first<T>(mutex: &Mutex<T>) {
    use shuttle::rand::Rng as _;

    if shuttle::current::try_get_current_task().is_none() {
        return;
    }
    if shuttle::rand::thread_rng().gen_bool(0.5) {
        shuttle::thread::yield_now();
    }
    while mutex.is_locked() {
        shuttle::thread::yield_now();
    }
}
