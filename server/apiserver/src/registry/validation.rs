//! Validation of objects before they are written. If a kind evaluates expressions, validation takes bounded but considerable time and
//! therefore runs on a blocking thread.

use std::sync::Arc;

use serde_json::Value;
use trireme_api::field::{FieldError, FieldErrors, FieldPath};
use trireme_api::resource::Definition;
use trireme_api::validate::Errors;

use super::mutation::Mutation;

impl Mutation<'_> {
    /// Checks a new object; warnings are kept for the answer.
    pub async fn judge_create(&mut self, definition: &Arc<Definition>, object: &Value) -> FieldErrors {
        let errors = match definition.kind.evaluates() {
            false => Ok(definition.judge_create(object)),
            true => {
                let (definition, object) = (definition.clone(), object.clone());
                tokio::task::spawn_blocking(move || definition.judge_create(&object)).await
            }
        };
        self.judged(errors)
    }

    /// Checks a changed object, or an update of a subresource that carries the whole object (empty: of the object itself).
    pub async fn judge_update(&mut self, definition: &Arc<Definition>, subresource: &str, object: &Value, old: &Arc<Value>) -> FieldErrors {
        let errors = match definition.kind.evaluates() {
            false => Ok(definition.judge_update(subresource, object, old)),
            true => {
                let (definition, subresource, object, old) = (definition.clone(), subresource.to_owned(), object.clone(), old.clone());
                tokio::task::spawn_blocking(move || definition.judge_update(&subresource, &object, &old)).await
            }
        };
        self.judged(errors)
    }

    fn judged(&mut self, errors: Result<Errors, tokio::task::JoinError>) -> FieldErrors {
        match errors {
            Ok(errors) => {
                self.warnings.append(&mut errors.take_warnings());
                errors.take()
            }
            Err(error) => vec![FieldError::internal(&FieldPath::root(), format!("the validation failed: {error}"))],
        }
    }
}
