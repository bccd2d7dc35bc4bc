"""Options of other libraries that a routes file may be written with, and what each one is here.

They come from Celery, RQ, Dramatiq, Taskiq, FastStream, Bento and Spring Cloud Stream, and from the brokers
that these talk to.
"""

from __future__ import annotations

import re

_KEY = "a routing key below `routes`: `orders.created: {consumers: {billing: shop:charge}}`"
_GROUP = "the name of a group below `consumers`: `billing: shop:charge`"
_HANDLER = "`handler` of a consumer: `handler: shop:charge`"
_CONCURRENCY = "`concurrency` of a consumer, and `serve --workers` for processes: `concurrency: 10`"
#: What it is here, with its place and an example, and the words for it elsewhere.
MEANT = {
    _KEY: "queue queues queue_name topic topics subject subjects channel channels stream streams exchange"
    " routing_key binding bindings binding_key input inputs source pipeline"
    " pipelines task_routes task_queues pattern patterns",
    _GROUP: "group groups group_id group_name consumer_group subscription consumer_name durable_name",
    _HANDLER: "task tasks actor actors job jobs func function callable callback subscriber subscribers"
    " listener listeners processor processors",
    _CONCURRENCY: "workers num_workers worker_concurrency max_workers threads processes parallelism"
    " max_async_tasks max_tasks",
    "`emit` of a consumer: `emit: orders.priced`": "destination destinations output outputs output_topic"
    " publisher publishers result_topic send_to reply_to",
    "`attempts` of `retry` in a consumer: `retry: {attempts: 5}`": "retries max_retries max_retry"
    " max_attempts tries retry_limit retry_count retry_policy",
    "`initial` of `retry` in a consumer: `retry: {initial: 200ms}`": "countdown delay retry_delay"
    " default_retry_delay retry_backoff backoff min_backoff initial_interval back_off_initial_interval"
    " interval_start",
    "`max` of `retry` in a consumer: `retry: {max: 30s}`": "max_backoff retry_backoff_max max_interval"
    " back_off_max_interval interval_max",
    "`factor` of `retry` in a consumer: `retry: {factor: 2}`": "multiplier back_off_multiplier",
    "`jitter` of `retry` in a consumer: `retry: {jitter: true}`": "retry_jitter",
    "`timeout` of a consumer: `timeout: 30s`": "time_limit soft_time_limit task_time_limit"
    " task_soft_time_limit job_timeout default_timeout processing_timeout",
    "`lease` of a consumer: `lease: 30s`": "visibility_timeout ack_wait lock_duration idle_timeout"
    " min_idle_time",
    "`drain` of a consumer: `drain: 30s`": "graceful_timeout graceful_shutdown_timeout shutdown_timeout"
    " worker_shutdown_timeout worker_soft_shutdown_timeout",
    "`rate` of a consumer: `rate: 100/s`": "rate_limit ratelimit rate_limiter throttle task_rate_limit",
    "`dead_letter` of a consumer: `dead_letter: true`": "dead_letter_queue dead_letter_exchange"
    " dead_letter_topic dlq dlq_name enable_dlq auto_bind_dlq",
    "`when` of a consumer: `when: {properties: {total: {minimum: 100}}}`": "filter filters condition",
    "`order_by` of a consumer: `order_by: /customer/id`": "partition_key partition_key_expression"
    " message_group_id ordering_key",
    "`batch` of a consumer: `batch: {size: 100}`": "batch_size batching batch_mode max_records"
    " max_poll_records",
    "`wait` of `batch` in a consumer: `batch: {wait: 50ms}`": "batch_timeout batch_period flush_interval",
    "`start` of a consumer: `start: earliest`": "auto_offset_reset offset start_offset start_from"
    " deliver_policy last_id",
    "`retain` of a routing key: `retain: 7d`": "retention retention_period max_age result_ttl",
    "`id` of a routing key, with `dedupe`: `{id: /order_id, dedupe: 1h}`": "task_id job_id message_id unique"
    " idempotency_key deduplication_id",
    "`dedupe` of a routing key: `dedupe: 1h`": "deduplication dedup dedup_window deduplication_window",
    "`schema` of a routing key: `schema: orders.created.json`": "model payload_type message_schema"
    " json_schema validator",
    "`backend` of the file: `backend: redis://localhost:6379/0`": "broker brokers broker_url url dsn"
    " connection binder binders default_binder transport result_backend",
    "`prefix` of the file: `prefix: shop`": "namespace key_prefix global_keyprefix",
    "`defaults` of the file: `defaults: {timeout: 30s}`": "default settings task_defaults",
}
#: What happens by itself, and the words for it elsewhere.
_AUTOMATIC = {
    "each message is acked after its handler": "ack acks ack_late acks_late task_acks_late ack_policy"
    " ack_type ack_mode auto_ack no_ack",
    "a consumer reads ahead while its handlers keep up; `concurrency: 10` limits what runs": "prefetch"
    " prefetch_count prefetch_multiplier worker_prefetch_multiplier queue_prefetch max_in_flight"
    " max_ack_pending",
    "every error is tried again, up to `retry: {attempts: 5}`, but for `raise Reject(why)`": "autoretry_for"
    " dont_autoretry_for retry_on retry_when retry_on_error throws exceptions",
}
_TABLES = (("here that is", MEANT), ("nothing to set:", _AUTOMATIC))
_HINTS = {
    word: f"{begin} {meant}"
    for begin, table in _TABLES
    for meant, words in table.items()
    for word in words.split()
}


def hint_of_synonym(option: str) -> str:
    """Return what an option of another library is here, with an example, or an empty string.

    `max-attempts` and `maxAttempts` are read as `max_attempts`.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", option)
    return _HINTS.get(spaced.replace("-", "_").lower(), "")
