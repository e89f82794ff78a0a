//! What the `rdkafka` crate does not offer, straight from librdkafka: reading a partition in
//! batches, commits whose answers arrive, the watermarks that the client knows, the ids of topics.
//!
//! It stands below `reader` and `client`, and is the only unsafe code of this project. Everything
//! that it hands out borrows from, or owns, what it points into, so that nothing outside of this
//! file can keep a pointer for too long. It is tested with an address sanitizer against
//! librdkafka's mock cluster (`cargo xtask sanitize`).
//!
//! **Why batches.** `rd_kafka_consume_batch_queue` takes thousands of messages under one lock,
//! where `poll` takes one: half as much time for each message again.

#![allow(unsafe_code)]

use super::context::Context;
use crate::Record;
use rdkafka::bindings::*;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionList;
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

/// Errors of librdkafka, by their codes.
pub(super) type Code = rd_kafka_resp_err_t;

/// The queue of one partition: what was fetched from it and not read yet.
///
/// It stands apart from the consumer's own queue, so that each topic is read at its own pace, and
/// a partition that nobody reads fills up to its bound and is then not fetched any further.
pub(super) struct Queue {
    ptr: NonNull<rd_kafka_queue_t>,
    /// The queue belongs to the client, which must outlive it. Dropped after `ptr` is destroyed.
    _client: Arc<BaseConsumer<Context>>,
}

// SAFETY: librdkafka's queues may be used from any thread; the pointer is destroyed once, in `drop`.
unsafe impl Send for Queue {}

impl Queue {
    /// Takes the partition out of the consumer's queue. Do it before the partition is assigned.
    pub(super) fn of_partition(
        client: &Arc<BaseConsumer<Context>>,
        topic: &CStr,
        partition: i32,
    ) -> Option<Queue> {
        // SAFETY: the client is alive, the name ends with a zero; a null pointer is filtered out.
        // Forwarding to nowhere is how a partition keeps its messages in its own queue.
        let ptr = unsafe {
            let ptr = rd_kafka_queue_get_partition(
                client.client().native_ptr(),
                topic.as_ptr(),
                partition,
            );
            let ptr = NonNull::new(ptr)?;
            rd_kafka_queue_forward(ptr.as_ptr(), ptr::null_mut());
            ptr
        };
        Some(Queue { ptr, _client: client.clone() })
    }

    /// Number of messages and events that wait.
    pub(super) fn len(&self) -> usize {
        // SAFETY: the queue lives until `drop`.
        unsafe { rd_kafka_queue_length(self.ptr.as_ptr()) }
    }

    /// Moves up to `max` messages that wait into an empty `Messages`; does not wait for more.
    pub(super) fn take(&self, max: usize, into: &mut Messages) {
        into.clear();
        into.pointers.reserve(max);
        // SAFETY: the vector has room for `max` pointers, of which librdkafka writes the first
        // `count`; each is a message that we own from now on.
        unsafe {
            let room = into.pointers.as_mut_ptr();
            let count = rd_kafka_consume_batch_queue(self.ptr.as_ptr(), 0, room, max);
            into.pointers.set_len(usize::try_from(count).unwrap_or(0).min(max));
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it was got once and is destroyed once, before the client is let go.
        unsafe { rd_kafka_queue_destroy(self.ptr.as_ptr()) }
    }
}

/// Bytes that a processor fetches at once.
const CACHE_LINE: usize = 64;
/// Of a longer payload the rest is fetched by the processor's own guess.
const MOST_PREFETCHED: usize = 8 * CACHE_LINE;

/// A hint, on processors that take one.
#[inline(always)]
fn prefetch(pointer: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, wherever it points.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}

/// Messages that were taken from a queue, read from the front.
#[derive(Default)]
pub(super) struct Messages {
    pointers: Vec<*mut rd_kafka_message_t>,
    /// Those before it are destroyed already.
    at: usize,
}

// SAFETY: a message belongs to whoever took it and is bound to no thread.
unsafe impl Send for Messages {}

impl Messages {
    /// The first message that is left.
    #[inline]
    pub(super) fn first(&self) -> Option<Message<'_>> {
        let pointer = *self.pointers.get(self.at)?;
        // SAFETY: pointers from `at` on are messages that we own; they are destroyed only through
        // `&mut self`, while no borrow of them is alive.
        Some(Message { raw: unsafe { &*pointer } })
    }

    /// The messages that are left, from the first one on.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        // SAFETY: as for the first one.
        self.pointers[self.at..].iter().map(|pointer| Message { raw: unsafe { &**pointer } })
    }

    /// Has the processor fetch messages that are read soon: librdkafka's thread has written them,
    /// on another core. `at` says after how many, `count` how many.
    #[inline]
    pub(super) fn prefetch(&self, at: usize, count: usize) {
        let pointers = &self.pointers[self.at..];
        let of = |at: usize| pointers.get(at..).unwrap_or_default().iter().take(count);
        for pointer in of(at) {
            // SAFETY: it is a message of ours.
            let raw = unsafe { &**pointer };
            for line in (0..raw.len.min(MOST_PREFETCHED)).step_by(CACHE_LINE) {
                prefetch(raw.payload.cast::<u8>().wrapping_add(line));
            }
        }
        // Where the payload is stands in the message, so that is wanted one step earlier.
        of(at + count).for_each(|pointer| prefetch(pointer.cast()));
    }

    /// Lets the first messages go.
    #[inline]
    pub(super) fn pop(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(pointer) = self.pointers.get(self.at) {
                self.at += 1;
                // SAFETY: it is ours, and `at` has passed it, so it is destroyed once.
                unsafe { rd_kafka_message_destroy(*pointer) }
            }
        }
    }

    /// Number of messages that are left.
    pub(super) fn len(&self) -> usize {
        self.pointers.len() - self.at
    }

    /// Lets all messages go.
    pub(super) fn clear(&mut self) {
        self.pop(self.len());
        self.pointers.clear();
        self.at = 0;
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One message: a record, or an event of its partition.
#[derive(Clone, Copy)]
pub(super) struct Message<'m> {
    raw: &'m rd_kafka_message_t,
}

impl<'m> Message<'m> {
    /// The event, where it is no record.
    #[inline]
    pub(super) fn error(&self) -> Option<Code> {
        (self.raw.err != Code::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(self.raw.err)
    }

    /// What librdkafka says of the event.
    pub(super) fn error_text(&self) -> String {
        String::from_utf8_lossy(self.payload().unwrap_or_default()).into_owned()
    }

    #[inline]
    pub(super) fn offset(&self) -> u64 {
        u64::try_from(self.raw.offset).unwrap_or(0)
    }

    /// `None` for a null value (a tombstone).
    #[inline]
    pub(super) fn payload(&self) -> Option<&'m [u8]> {
        // SAFETY: librdkafka's pointer and length describe bytes that live as long as the message.
        unsafe { slice(self.raw.payload, self.raw.len) }
    }

    /// `None` for a null key.
    #[inline]
    pub(super) fn key(&self) -> Option<&'m [u8]> {
        // SAFETY: as for the payload.
        unsafe { slice(self.raw.key, self.raw.key_len) }
    }

    /// The record time in milliseconds, `None` where the record has none.
    #[inline]
    pub(super) fn record_time_ms(&self) -> Option<i64> {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive, and `kind` is written before the call returns.
        let time_ms = unsafe { rd_kafka_message_timestamp(self.raw, &mut kind) };
        let is_known = kind != rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        (is_known && time_ms >= 0).then_some(time_ms)
    }

    /// The record that it is, with its headers.
    #[inline]
    pub(super) fn record<'r>(self, headers: &'r [(Cow<'r, str>, Cow<'r, str>)]) -> Record<'r>
    where
        'm: 'r,
    {
        Record {
            offset: self.offset(),
            record_time_ms: self.record_time_ms(),
            key: self.key(),
            payload: self.payload(),
            headers,
        }
    }

    /// The headers, in their order. Values that are no UTF-8 have the bad bytes replaced; a null
    /// value reads as an empty one.
    pub(super) fn headers(&self) -> Vec<(Cow<'m, str>, Cow<'m, str>)> {
        let (mut into, mut headers) = (Vec::new(), ptr::null_mut());
        // SAFETY: the message is alive. Headers belong to it and live as long; on any error but
        // "no error" there are none.
        let code = unsafe { rd_kafka_message_headers(self.raw, &mut headers) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return into;
        }
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null::<c_void>(), 0);
        for index in 0.. {
            // SAFETY: past the last header an error is returned and nothing is written.
            let code =
                unsafe { rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len) };
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            // SAFETY: names end with a zero; name and value live as long as the message.
            let (name, value) = unsafe { (CStr::from_ptr(name), slice(value, len)) };
            let value = String::from_utf8_lossy(value.unwrap_or_default());
            into.push((name.to_string_lossy(), value));
        }
        into
    }
}

/// # Safety
/// `pointer` is null, or `len` bytes can be read there for as long as `'m`.
#[inline]
unsafe fn slice<'m>(pointer: *const c_void, len: usize) -> Option<&'m [u8]> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    Some(unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}

/// Commits that were sent and where their answers arrive. (The crate's own asynchronous commit tells
/// nobody how it went.)
pub(super) struct Commits {
    ptr: NonNull<rd_kafka_queue_t>,
    client: Arc<BaseConsumer<Context>>,
    /// Commits are numbered from 1 on; they are answered in their order.
    sent: u64,
    answered: u64,
    /// The last one that was taken in whole.
    confirmed: u64,
    /// The last one that was refused, or was to be sent when sending failed.
    refused: u64,
}

// SAFETY: as for `Queue`.
unsafe impl Send for Commits {}

impl Commits {
    pub(super) fn new(client: &Arc<BaseConsumer<Context>>) -> Commits {
        // SAFETY: the client is alive. librdkafka aborts where there is no memory.
        let ptr = unsafe { rd_kafka_queue_new(client.client().native_ptr()) };
        let ptr = NonNull::new(ptr).expect("librdkafka makes a queue or aborts");
        Commits { ptr, client: client.clone(), sent: 0, answered: 0, confirmed: 0, refused: 0 }
    }

    /// Sends offsets and does not wait.
    pub(super) fn send(&mut self, offsets: &TopicPartitionList) -> Result<(), Code> {
        // SAFETY: the list is copied before the call returns; without a callback the answer is an
        // event on our queue.
        let code = unsafe {
            rd_kafka_commit_queue(
                self.client.client().native_ptr(),
                offsets.ptr(),
                self.ptr.as_ptr(),
                None,
                ptr::null_mut(),
            )
        };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            self.refused = self.sent;
            return Err(code);
        }
        self.sent += 1;
        Ok(())
    }

    /// The next answer, if it comes in time.
    pub(super) fn answer(&mut self, timeout: Duration) -> Option<Code> {
        let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue lives until `drop`; the event is destroyed by its guard.
        let code = unsafe {
            let event = rd_kafka_queue_poll(self.ptr.as_ptr(), timeout_ms);
            if event.is_null() {
                return None;
            }
            let event = Owned::new(event, rd_kafka_event_destroy);
            match rd_kafka_event_error(event.0) {
                // Only where all partitions failed is that the event's own error.
                Code::RD_KAFKA_RESP_ERR_NO_ERROR => first_error(event.0),
                code => code,
            }
        };
        self.answered += 1;
        match code {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => self.confirmed = self.answered,
            _ => self.refused = self.refused.max(self.answered),
        }
        Some(code)
    }

    /// The number of the last commit that was sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The number of the last commit that was taken.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// The number of the last commit that was not taken, as far as is known.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether commits have no answer yet.
    pub(super) fn waits(&self) -> bool {
        self.answered < self.sent
    }
}

impl Drop for Commits {
    fn drop(&mut self) {
        // SAFETY: it was made once and is destroyed once, before the client is let go.
        unsafe { rd_kafka_queue_destroy(self.ptr.as_ptr()) }
    }
}

/// The first error of any partition in the answer to a commit.
///
/// # Safety
/// The event is alive.
unsafe fn first_error(event: *mut rd_kafka_event_t) -> Code {
    // SAFETY: the list belongs to the event, and its `cnt` elements are valid.
    unsafe {
        let list = rd_kafka_event_topic_partition_list(event);
        if list.is_null() {
            return Code::RD_KAFKA_RESP_ERR_NO_ERROR;
        }
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let mut errors = (0..count).map(|place| (*(*list).elems.add(place)).err);
        let is_error = |code: &Code| *code != Code::RD_KAFKA_RESP_ERR_NO_ERROR;
        errors.find(is_error).unwrap_or(Code::RD_KAFKA_RESP_ERR_NO_ERROR)
    }
}

/// The metadata of a partition's committed offset; `None` where nothing is committed. (The crate's
/// own function panics at metadata of a foreign client that is no UTF-8.)
pub(super) fn note_of(
    committed: &TopicPartitionList,
    topic: &str,
    partition: i32,
) -> Option<String> {
    // SAFETY: the list is alive, and its `cnt` elements are valid; names end with a zero, and the
    // metadata of an element are `metadata_size` bytes that belong to it.
    unsafe {
        let list = &*committed.ptr();
        let elements = usize::try_from(list.cnt).unwrap_or(0);
        let elements = (0..elements).map(|place| &*list.elems.add(place));
        let is_it = |e: &&rd_kafka_topic_partition_t| {
            e.partition == partition && CStr::from_ptr(e.topic).to_bytes() == topic.as_bytes()
        };
        let element = elements.into_iter().find(is_it).filter(|element| element.offset >= 0)?;
        let bytes = slice(element.metadata, element.metadata_size).unwrap_or_default();
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// The end of a partition as of the last fetch, without asking anybody; `None` before the first.
pub(super) fn known_end(
    client: &BaseConsumer<Context>,
    topic: &CStr,
    partition: i32,
) -> Option<u64> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is alive, the name ends with a zero, both numbers are ours.
    let code = unsafe {
        rd_kafka_get_watermark_offsets(
            client.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(())?;
    u64::try_from(high).ok()
}

/// The ids of topics, which tell a topic from another of the same name made after it. `None` for
/// one that does not exist, and for all of them where the broker is too old to say.
///
/// # Errors
/// What librdkafka says.
pub(super) fn topic_ids(
    client: &BaseConsumer<Context>,
    topics: &[CString],
    timeout: Duration,
) -> Result<Vec<Option<String>>, String> {
    let client = client.client().native_ptr();
    let mut names: Vec<*const c_char> = topics.iter().map(|topic| topic.as_ptr()).collect();
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: each object that is made here is destroyed at the end of its guard, after the last
    // use of what borrows from it; names are copied by the collection.
    unsafe {
        let collection = Owned::new(
            rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            rd_kafka_TopicCollection_destroy,
        );
        let queue = Owned::new(rd_kafka_queue_new(client), rd_kafka_queue_destroy);
        let options = Owned::new(
            rd_kafka_AdminOptions_new(
                client,
                rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            rd_kafka_AdminOptions_destroy,
        );
        let mut text = [0; 256];
        rd_kafka_AdminOptions_set_request_timeout(
            options.0,
            timeout_ms,
            text.as_mut_ptr(),
            text.len(),
        );
        rd_kafka_DescribeTopics(client, collection.0, options.0, queue.0);
        let event = rd_kafka_queue_poll(queue.0, timeout_ms.saturating_add(500));
        if event.is_null() {
            return Err("no answer in time".to_owned());
        }
        let event = Owned::new(event, rd_kafka_event_destroy);
        if rd_kafka_event_error(event.0) != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            let text = CStr::from_ptr(rd_kafka_event_error_string(event.0));
            return Err(text.to_string_lossy().into_owned());
        }
        let result = rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let found = rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let found: Vec<_> = (0..count).map(|place| *found.add(place)).collect();
        Ok(topics.iter().map(|topic| id_of(&found, topic)).collect())
    }
}

/// # Safety
/// The descriptions are alive.
unsafe fn id_of(found: &[*const rd_kafka_TopicDescription_t], topic: &CStr) -> Option<String> {
    // SAFETY: names and ids belong to the descriptions, which the caller keeps alive.
    unsafe {
        let of_name = |d: &&*const _| CStr::from_ptr(rd_kafka_TopicDescription_name(**d)) == topic;
        let description = *found.iter().find(of_name)?;
        let id = rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() || rd_kafka_Uuid_most_significant_bits(id) == 0 {
            return None; // an old broker, or no such topic
        }
        let text = rd_kafka_Uuid_base64str(id);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// An object of librdkafka with the function that destroys it.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Self {
        Owned(pointer, destroy)
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it was made for us and is destroyed once.
            unsafe { (self.1)(self.0) }
        }
    }
}
