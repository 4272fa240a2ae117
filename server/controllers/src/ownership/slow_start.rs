//! Many writes of one kind, in growing batches: what fails for all (a quota, an admission refusal) fails once and not 500 times.

use std::future::Future;

use crate::Error;

/// Runs `task(0)` to `task(count - 1)` in batches of 1, 2, 4, ... at once. After a batch with a failure none is started.
/// Returns how many succeeded, and the first failure.
pub(crate) async fn slow_start<F>(count: usize, task: impl Fn(usize) -> F) -> (usize, Result<(), Error>)
where
    F: Future<Output = Result<(), Error>>,
{
    let (mut done, mut succeeded, mut batch) = (0, 0, 1);
    while done < count {
        let size = batch.min(count - done);
        let results = futures::future::join_all((done..done + size).map(&task)).await;
        let errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
        succeeded += size - errors.len();
        if let Some(error) = Error::first_of(errors) {
            return (succeeded, Err(error));
        }
        done += size;
        batch *= 2;
    }
    (succeeded, Ok(()))
}
