//! Who is to look again: a set, not a list, so it never holds more than there are objects.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;

/// Filled by one loop, emptied by another.
pub(crate) struct Wakes<K: Resource<DynamicType = ()>> {
    waiting: Mutex<HashSet<ObjectRef<K>>>,
    bell: Notify,
}

impl<K: Resource<DynamicType = ()>> Default for Wakes<K> {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            bell: Notify::new(),
        }
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Wakes<K> {
    pub(crate) fn wake(&self, object: ObjectRef<K>) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(object);
        self.bell.notify_one();
    }

    fn take_one(&self) -> Option<ObjectRef<K>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let one = waiting.iter().next().cloned()?;
        waiting.take(&one)
    }

    async fn next(&self) -> ObjectRef<K> {
        loop {
            let rung = self.bell.notified();
            if let Some(one) = self.take_one() {
                return one;
            }
            rung.await;
        }
    }

    /// For one reader; never ends.
    pub(crate) fn stream(self: Arc<Self>) -> impl Stream<Item = ObjectRef<K>> + Send + 'static {
        futures::stream::unfold(self, |wakes| async move {
            let one = wakes.next().await;
            Some((one, wakes))
        })
    }
}
