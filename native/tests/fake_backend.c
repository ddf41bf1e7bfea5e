/*
 * fake_backend.c: a backend with no arithmetic, for testing what lies above the waist (the binding, the runner package)
 * under latency, failure and sanitizers. Deterministic: what it samples depends only on the tokens of the sequence's row.
 * Written in C so that it also proves the header to be C99.
 *
 * Settings travel in kv_runner_options.instruction_path, as "fake:key=value,key=value":
 *   step_us=N     the submission thread sleeps this long in every step
 *   open_us=N     loading sleeps this long between progress reports (100 of them)
 *   lose_at=N     the N-th step (from 1) fails with KV_DEVICE_LOST, and so does every later call
 *   block_us=N    block copies, reads and writes sleep this long
 *
 * Threads: one submission thread a runner; `mutex` guards the queue, `stopping` and the counters; the pool is touched
 * only by the submission thread.
 */
#define _POSIX_C_SOURCE 200809L

#include "../abi/kvasir_abi.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FAKE_MAX_POOL_BYTES ((uint64_t)1 << 30)

typedef struct fake_settings {
  unsigned long step_us, open_us, block_us, lose_at;
} fake_settings;

typedef enum job_kind { JOB_STEP, JOB_COPY, JOB_READ, JOB_WRITE } job_kind;

/* One queued call. Owns its copies; `data` of reads and writes is the caller's. */
typedef struct job {
  struct job* next;
  job_kind kind;
  void* user;
  kv_step_callback step_callback;
  kv_done_callback done_callback;
  uint32_t n_tokens, n_sequences, n_groups, n_logprobs, group, count;
  int32_t *token_ids, *positions, *cu_seqlens, *slots[KV_MAX_GROUPS], *input_rows, *output_indexes, *target_ids;
  uint8_t* row_flags;
  uint32_t max_outputs;
  int32_t stop_id;
  int32_t *sources, *destinations, *n_copied;
  unsigned char* data;
} job;

struct kv_runner {
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  job *first, *last;
  int stopping, lost;
  fake_settings settings;
  uint32_t vocab, n_groups, block_tokens, n_slots, max_tokens, max_sequences;
  uint32_t n_blocks[KV_MAX_GROUPS];
  uint64_t block_bytes[KV_MAX_GROUPS];
  unsigned char* pool[KV_MAX_GROUPS];
  uint32_t max_outputs;  /* of the latest admission */
  uint32_t n_logprobs;   /* of the latest admission */
  int32_t stop_id;       /* of the latest admission, -1: none */
  int32_t* previous_ids; /* (max_sequences) sampled by the previous step */
  uint64_t n_steps, allocations;
};

/* ------------------------------------------------------------------------------------------------ helpers */

static kv_status refuse(kv_error* error, kv_status status, const char* message) {
  if (error != NULL && error->size == sizeof(kv_error)) {
    error->status = status;
    snprintf(error->message, sizeof(error->message), "%s", message);
  }
  return status;
}

static void sleep_us(unsigned long us) {
  struct timespec time = {(time_t)(us / 1000000ul), (long)(us % 1000000ul) * 1000l};
  if (us > 0) nanosleep(&time, NULL);
}

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000ull + (uint64_t)time.tv_nsec;
}

static void* copied(const void* source, size_t bytes) {
  void* copy;
  if (source == NULL || bytes == 0) return NULL;
  copy = malloc(bytes);
  if (copy != NULL) memcpy(copy, source, bytes);
  return copy;
}

/* The finalizer of MurmurHash3: spreads a counter over 64 bits. */
static uint64_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ (x >> 33);
}

static unsigned long setting(const char* text, const char* key) {
  const char* found = text == NULL ? NULL : strstr(text, key);
  return found == NULL ? 0 : strtoul(found + strlen(key), NULL, 10);
}

static void free_job(job* done) {
  uint32_t group;
  for (group = 0; group < KV_MAX_GROUPS; group++) free(done->slots[group]);
  free(done->token_ids);
  free(done->positions);
  free(done->cu_seqlens);
  free(done->input_rows);
  free(done->output_indexes);
  free(done->target_ids);
  free(done->row_flags);
  free(done->sources);
  free(done->destinations);
  free(done->n_copied);
  free(done);
}

/* ------------------------------------------------------------------------------------------------ submission thread */

static void fail_job(const job* failed, kv_status status, const char* message) {
  kv_error error;
  memset(&error, 0, sizeof(error));
  error.size = sizeof(error);
  refuse(&error, status, message);
  if (failed->kind == JOB_STEP) {
    failed->step_callback(failed->user, NULL, &error);
  } else {
    failed->done_callback(failed->user, &error);
  }
}

/* Logit of token v after `state`: any fixed function will do. */
static float fake_logit(uint64_t state, uint32_t v) { return (float)(mix(state + v) >> 40) * (1.0f / 16777216.0f); }

static uint64_t row_state(const kv_runner* runner, const job* step, uint32_t row, uint32_t last) {
  uint32_t t, first = (uint32_t)step->cu_seqlens[row];
  uint64_t state = 0;
  for (t = first; t <= last; t++) {
    int32_t id = step->token_ids[t];
    if (t == first && step->input_rows != NULL && step->input_rows[row] >= 0) {
      id = runner->previous_ids[step->input_rows[row]];
    }
    state = mix(state ^ ((uint64_t)(uint32_t)id << 32 | (uint32_t)step->positions[t]));
  }
  return state;
}

/* Marks every byte of a written slot with the low byte of its token, in K and V of each head of each layer. */
static void write_slots(kv_runner* runner, const job* step) {
  uint32_t group, t;
  for (group = 0; group < runner->n_groups; group++) {
    uint64_t bytes = runner->block_bytes[group] / runner->block_tokens; /* per token, over all rows of the payload */
    for (t = 0; t < step->n_tokens; t++) {
      int32_t slot = step->slots[group][t];
      if (slot < 0) continue;
      memset(runner->pool[group] + (uint64_t)slot * bytes, step->token_ids[t] & 0xff, bytes);
    }
  }
}

static void run_step(kv_runner* runner, const job* step) {
  const uint32_t S = step->n_sequences, T = step->n_tokens, V = runner->vocab, K = step->n_logprobs;
  const uint64_t started = now_ns();
  kv_step_result result;
  int32_t* sampled = malloc(S * sizeof(int32_t));
  float* logprobs = malloc(S * sizeof(float));
  uint8_t* stops = calloc(S, 1);
  int32_t* top_ids = malloc((S * (size_t)K + 1) * sizeof(int32_t));
  float* top_logprobs = malloc((S * (size_t)K + 1) * sizeof(float));
  uint64_t* hashes = calloc(S, sizeof(uint64_t));
  float* targets = malloc(T * sizeof(float));
  uint32_t* logits_tokens = malloc((T + S) * sizeof(uint32_t));
  float* logits = NULL;
  uint32_t row, t, v, k, n_rows = 0;
  int any_target = 0;

  sleep_us(runner->settings.step_us);
  for (row = 0; row < S; row++) {
    uint32_t last = (uint32_t)step->cu_seqlens[row + 1] - 1;
    if (step->row_flags[row] & KV_ROW_LOGITS_ALL) {
      for (t = (uint32_t)step->cu_seqlens[row]; t <= last; t++) logits_tokens[n_rows++] = t;
    } else if (step->row_flags[row] & KV_ROW_LOGITS_LAST) {
      logits_tokens[n_rows++] = last;
    }
  }
  if (n_rows > 0) logits = malloc((size_t)n_rows * V * sizeof(float));
  n_rows = 0;
  for (row = 0; row < S; row++) {
    const uint32_t first = (uint32_t)step->cu_seqlens[row], last = (uint32_t)step->cu_seqlens[row + 1] - 1;
    const uint8_t flags = step->row_flags[row];
    const uint64_t state = row_state(runner, step, row, last);
    sampled[row] = -1;
    logprobs[row] = NAN;
    for (k = 0; k < K; k++) {
      top_ids[row * K + k] = -1;
      top_logprobs[row * K + k] = NAN;
    }
    if (flags & KV_ROW_SAMPLE) {
      sampled[row] = (int32_t)(state % V);
      logprobs[row] = K > 0 ? -0.5f : NAN;
      for (k = 0; k < K; k++) {
        top_ids[row * K + k] = (int32_t)((state + k) % V);
        top_logprobs[row * K + k] = -0.5f - (float)k;
      }
      if (step->stop_id >= 0 && sampled[row] == step->stop_id) {
        stops[row] = KV_STOP_TOKEN;
      } else if (step->max_outputs > 0 && (uint32_t)step->output_indexes[row] + 1 >= step->max_outputs) {
        stops[row] = KV_STOP_LENGTH;
      }
    }
    if (flags & KV_ROW_HASH) hashes[row] = state;
    for (t = first; t <= last; t++) {
      targets[t] = NAN;
      if ((flags & KV_ROW_TARGETS) && step->target_ids != NULL && step->target_ids[t] >= 0) {
        targets[t] = -(float)step->target_ids[t];
        any_target = 1;
      }
      if (logits != NULL && ((flags & KV_ROW_LOGITS_ALL) || (t == last && (flags & KV_ROW_LOGITS_LAST)))) {
        const uint64_t token_state = row_state(runner, step, row, t);
        for (v = 0; v < V; v++) logits[(size_t)n_rows * V + v] = fake_logit(token_state, v);
        n_rows++;
      }
    }
  }
  memcpy(runner->previous_ids, sampled, S * sizeof(int32_t));
  write_slots(runner, step);

  memset(&result, 0, sizeof(result));
  result.size = sizeof(result);
  result.n_sequences = S;
  result.n_logits_rows = n_rows;
  result.max_logprobs = K;
  result.sampled_ids = sampled;
  result.sampled_logprobs = logprobs;
  result.stops = stops;
  result.top_ids = top_ids;
  result.top_logprobs = top_logprobs;
  result.logits = logits;
  result.logits_tokens = logits_tokens;
  result.hashes = hashes;
  result.target_logprobs = any_target ? targets : NULL;
  result.execute_ns = now_ns() - started;
  step->step_callback(step->user, &result, NULL);

  free(sampled);
  free(logprobs);
  free(stops);
  free(top_ids);
  free(top_logprobs);
  free(hashes);
  free(targets);
  free(logits_tokens);
  free(logits);
}

static void run_blocks(kv_runner* runner, const job* blocks) {
  const uint64_t bytes = runner->block_bytes[blocks->group];
  unsigned char* pool = runner->pool[blocks->group];
  uint32_t i;
  sleep_us(runner->settings.block_us);
  for (i = 0; i < blocks->count; i++) {
    unsigned char* block = pool + (uint64_t)blocks->sources[i] * bytes;
    if (blocks->kind == JOB_READ) {
      memcpy(blocks->data + i * bytes, block, bytes);
    } else if (blocks->kind == JOB_WRITE) {
      memcpy(block, blocks->data + i * bytes, bytes);
    } else {
      uint64_t copied_bytes = bytes / runner->block_tokens * (uint64_t)blocks->n_copied[i];
      memmove(pool + (uint64_t)blocks->destinations[i] * bytes, block, copied_bytes);
    }
  }
  blocks->done_callback(blocks->user, NULL);
}

static void* submission_thread(void* argument) {
  kv_runner* runner = argument;
  for (;;) {
    job* next;
    int stopping, lost;
    pthread_mutex_lock(&runner->mutex);
    while (runner->first == NULL && !runner->stopping) pthread_cond_wait(&runner->wake, &runner->mutex);
    next = runner->first;
    if (next != NULL) runner->first = next->next;
    if (runner->first == NULL) runner->last = NULL;
    stopping = runner->stopping;
    if (next != NULL && next->kind == JOB_STEP && !stopping) {
      runner->n_steps++;
      if (runner->settings.lose_at > 0 && runner->n_steps >= runner->settings.lose_at) runner->lost = 1;
    }
    lost = runner->lost;
    pthread_mutex_unlock(&runner->mutex);
    if (next == NULL) return NULL;
    if (stopping) {
      fail_job(next, KV_CANCELLED, "fake: the runner was destroyed before this call ran");
    } else if (lost) {
      fail_job(next, KV_DEVICE_LOST, "fake: the device was lost, as asked by lose_at; open the runner again");
    } else if (next->kind == JOB_STEP) {
      run_step(runner, next);
    } else {
      run_blocks(runner, next);
    }
    free_job(next);
  }
}

static kv_status enqueue(kv_runner* runner, job* queued, kv_error* error) {
  pthread_mutex_lock(&runner->mutex);
  if (runner->lost) {
    pthread_mutex_unlock(&runner->mutex);
    free_job(queued);
    return refuse(error, KV_DEVICE_LOST, "fake: the device was lost earlier; open the runner again");
  }
  if (runner->last == NULL) {
    runner->first = queued;
  } else {
    runner->last->next = queued;
  }
  runner->last = queued;
  pthread_cond_signal(&runner->wake);
  pthread_mutex_unlock(&runner->mutex);
  return KV_OK;
}

/* ------------------------------------------------------------------------------------------------ the waist */

kv_status kv_get_backend_info(kv_backend_info* info, kv_error* error) {
  if (info == NULL || info->size != sizeof(*info)) return refuse(error, KV_INVALID_ARGUMENT, "info: wrong size");
  info->abi_version = KV_ABI_VERSION;
  snprintf(info->name, sizeof(info->name), "fake");
  snprintf(info->device, sizeof(info->device), "a device that computes nothing");
  snprintf(info->instruction_paths, sizeof(info->instruction_paths), "fake");
  return KV_OK;
}

/* "device_bytes=N" among the settings makes it a device with N bytes, all free. */
kv_status kv_plan_memory(const kv_model* model, const kv_runner_options* options, kv_memory_plan* plan,
                         kv_error* error) {
  const uint64_t device = options == NULL ? 0 : (uint64_t)setting(options->instruction_path, "device_bytes=");
  if (model == NULL || model->size != sizeof(*model) || options == NULL || options->size != sizeof(*options) ||
      plan == NULL || plan->size != sizeof(*plan)) {
    return refuse(error, KV_INVALID_ARGUMENT, "plan: expected a model, options and a plan of this header's sizes");
  }
  memset(plan, 0, sizeof(*plan));
  plan->size = sizeof(*plan);
  if (device == 0) return KV_OK;
  plan->total_bytes = plan->free_bytes = device;
  plan->weights_bytes = 1000;
  plan->workspace_bytes = options->max_batch_tokens;
  plan->pinned_bytes = 10;
  return KV_OK;
}

kv_status kv_runner_create(const kv_model* model, const kv_runner_options* options, kv_progress_callback progress,
                           void* user, kv_runner** out, kv_error* error) {
  kv_runner* runner;
  uint32_t i, group;
  if (model == NULL || model->size != sizeof(*model) || model->vocab == 0 || model->n_layers == 0 ||
      model->n_groups == 0 || model->n_groups > KV_MAX_GROUPS) {
    return refuse(error, KV_INVALID_ARGUMENT, "model: expected a vocabulary, layers and 1 to 4 groups");
  }
  if (options == NULL || options->size != sizeof(*options) || options->block_tokens == 0 ||
      options->max_batch_sequences == 0 || options->max_batch_tokens == 0) {
    return refuse(error, KV_INVALID_ARGUMENT, "options: expected block_tokens and batch limits of at least 1");
  }
  if (options->instruction_path != NULL && strcmp(options->instruction_path, "auto") != 0 &&
      strncmp(options->instruction_path, "fake", 4) != 0) {
    return refuse(error, KV_UNSUPPORTED, "instruction_path: expected auto or fake[:settings]");
  }
  runner = calloc(1, sizeof(*runner));
  if (runner == NULL) return refuse(error, KV_OUT_OF_MEMORY, "runner: no memory");
  runner->settings.step_us = setting(options->instruction_path, "step_us=");
  runner->settings.open_us = setting(options->instruction_path, "open_us=");
  runner->settings.block_us = setting(options->instruction_path, "block_us=");
  runner->settings.lose_at = setting(options->instruction_path, "lose_at=");
  runner->vocab = model->vocab;
  runner->n_groups = model->n_groups;
  runner->block_tokens = options->block_tokens;
  runner->n_slots = options->n_sampler_slots;
  runner->max_tokens = options->max_batch_tokens;
  runner->max_sequences = options->max_batch_sequences;
  runner->stop_id = -1;
  runner->previous_ids = calloc(runner->max_sequences, sizeof(int32_t));
  for (i = 0; i < model->n_layers; i++) {
    const kv_layer* layer = &model->layers[i];
    const uint64_t element = options->kv_dtype == KV_F32 ? 4 : 2;
    if (layer->size != sizeof(*layer) || layer->group >= model->n_groups) {
      free(runner->previous_ids);
      free(runner);
      return refuse(error, KV_INVALID_ARGUMENT, "layer: wrong size or group");
    }
    runner->block_bytes[layer->group] += 2ull * layer->n_kv_heads * layer->head_dim * options->block_tokens * element;
  }
  for (i = 0; i < 100; i++) {
    if (progress != NULL && progress(user, i, 100) != 0) {
      free(runner->previous_ids);
      free(runner);
      return refuse(error, KV_CANCELLED, "fake: loading was cancelled");
    }
    sleep_us(runner->settings.open_us);
  }
  for (group = 0; group < runner->n_groups; group++) {
    const uint64_t bytes = runner->block_bytes[group] * options->n_blocks[group];
    runner->n_blocks[group] = options->n_blocks[group];
    runner->pool[group] = bytes <= FAKE_MAX_POOL_BYTES ? calloc(1, bytes + 1) : NULL;
    if (runner->pool[group] == NULL) {
      while (group-- > 0) free(runner->pool[group]);
      free(runner->previous_ids);
      free(runner);
      return refuse(error, KV_OUT_OF_MEMORY, "pool: expected at most 1 GiB a group; ask for fewer blocks");
    }
  }
  if (progress != NULL) progress(user, 100, 100);
  pthread_mutex_init(&runner->mutex, NULL);
  pthread_cond_init(&runner->wake, NULL);
  pthread_create(&runner->thread, NULL, submission_thread, runner);
  *out = runner;
  return KV_OK;
}

void kv_runner_destroy(kv_runner* runner) {
  uint32_t group;
  if (runner == NULL) return;
  pthread_mutex_lock(&runner->mutex);
  runner->stopping = 1;
  pthread_cond_signal(&runner->wake);
  pthread_mutex_unlock(&runner->mutex);
  pthread_join(runner->thread, NULL);
  for (group = 0; group < runner->n_groups; group++) free(runner->pool[group]);
  pthread_mutex_destroy(&runner->mutex);
  pthread_cond_destroy(&runner->wake);
  free(runner->previous_ids);
  free(runner);
}

kv_status kv_runner_numerics_id(kv_runner* runner, char* out, uint32_t capacity, kv_error* error) {
  (void)runner;
  if (capacity < 8) return refuse(error, KV_INVALID_ARGUMENT, "numerics id: expected room for 8 bytes");
  snprintf(out, capacity, "fake-1");
  return KV_OK;
}

kv_status kv_runner_instruction_path(kv_runner* runner, char* out, uint32_t capacity, kv_error* error) {
  (void)runner;
  if (capacity < 8) return refuse(error, KV_INVALID_ARGUMENT, "instruction path: expected room for 8 bytes");
  snprintf(out, capacity, "fake");
  return KV_OK;
}

kv_status kv_runner_memory(kv_runner* runner, kv_memory* memory, kv_error* error) {
  uint32_t group;
  if (memory == NULL || memory->size != sizeof(*memory)) return refuse(error, KV_INVALID_ARGUMENT, "memory: wrong size");
  memory->weights_mapped_bytes = 0;
  memory->weights_repacked_bytes = 0;
  memory->workspace_bytes = 0;
  memory->pinned_bytes = 0;
  memory->host_bytes = 0;
  memory->residency_checks = 0;
  memory->residency_failures = 0;
  memory->allocations = runner->allocations;
  memory->kv_pool_bytes = 0;
  for (group = 0; group < runner->n_groups; group++) {
    memory->kv_pool_bytes += runner->block_bytes[group] * runner->n_blocks[group];
  }
  return KV_OK;
}

kv_status kv_runner_submit(kv_runner* runner, const kv_batch* batch, kv_step_callback callback, void* user,
                           kv_error* error) {
  job* step;
  uint32_t i, group;
  if (batch == NULL || batch->size != sizeof(*batch)) return refuse(error, KV_INVALID_ARGUMENT, "batch: wrong size");
  if (batch->n_tokens == 0 || batch->n_tokens > runner->max_tokens || batch->n_sequences == 0 ||
      batch->n_sequences > runner->max_sequences || batch->n_groups != runner->n_groups) {
    return refuse(error, KV_INVALID_ARGUMENT, "batch: tokens, sequences or groups outside the declared limits");
  }
  for (i = 0; i < batch->n_sequences; i++) {
    if (batch->cu_seqlens_q[i] < 0 || batch->cu_seqlens_q[i + 1] <= batch->cu_seqlens_q[i] ||
        (uint32_t)batch->cu_seqlens_q[i + 1] > batch->n_tokens) {
      return refuse(error, KV_INVALID_ARGUMENT, "cu_seqlens_q: expected an ascending list that ends at n_tokens");
    }
    if (batch->input_rows != NULL && batch->input_rows[i] >= (int32_t)runner->max_sequences) {
      return refuse(error, KV_INVALID_ARGUMENT, "input_rows: expected a row of the previous batch");
    }
  }
  for (group = 0; group < batch->n_groups; group++) {
    const int64_t limit = (int64_t)runner->n_blocks[group] * runner->block_tokens;
    for (i = 0; i < batch->n_tokens; i++) {
      if (batch->slot_mapping[group][i] >= limit) {
        return refuse(error, KV_INVALID_ARGUMENT, "slot_mapping: expected slots inside the pool");
      }
    }
  }
  for (i = 0; i < batch->n_samplers; i++) {
    if (batch->samplers[i].size != sizeof(kv_sampler) || batch->samplers[i].slot >= runner->n_slots) {
      return refuse(error, KV_INVALID_ARGUMENT, "samplers: wrong size or slot");
    }
    runner->max_outputs = batch->samplers[i].max_outputs;
    runner->n_logprobs = batch->samplers[i].n_logprobs;
    runner->stop_id = batch->samplers[i].n_stop > 0 ? batch->samplers[i].stop_ids[0] : -1;
  }
  step = calloc(1, sizeof(*step));
  if (step == NULL) return refuse(error, KV_OUT_OF_MEMORY, "step: no memory");
  step->kind = JOB_STEP;
  step->user = user;
  step->step_callback = callback;
  step->n_tokens = batch->n_tokens;
  step->n_sequences = batch->n_sequences;
  step->n_groups = batch->n_groups;
  step->n_logprobs = runner->n_logprobs;
  step->max_outputs = runner->max_outputs;
  step->stop_id = runner->stop_id;
  step->token_ids = copied(batch->token_ids, batch->n_tokens * sizeof(int32_t));
  step->positions = copied(batch->positions, batch->n_tokens * sizeof(int32_t));
  step->cu_seqlens = copied(batch->cu_seqlens_q, (batch->n_sequences + 1) * sizeof(int32_t));
  step->input_rows = copied(batch->input_rows, batch->n_sequences * sizeof(int32_t));
  step->output_indexes = copied(batch->output_indexes, batch->n_sequences * sizeof(int32_t));
  step->row_flags = copied(batch->row_flags, batch->n_sequences);
  step->target_ids = copied(batch->target_ids, batch->n_tokens * sizeof(int32_t));
  for (group = 0; group < batch->n_groups; group++) {
    step->slots[group] = copied(batch->slot_mapping[group], batch->n_tokens * sizeof(int32_t));
  }
  return enqueue(runner, step, error);
}

kv_status kv_runner_block_bytes(kv_runner* runner, uint32_t group, uint64_t* bytes, kv_error* error) {
  if (group >= runner->n_groups) return refuse(error, KV_INVALID_ARGUMENT, "group: expected one of the model's groups");
  *bytes = runner->block_bytes[group];
  return KV_OK;
}

static kv_status enqueue_blocks(kv_runner* runner, job_kind kind, uint32_t group, const int32_t* sources,
                                const int32_t* destinations, const int32_t* n_tokens, uint32_t count,
                                unsigned char* data, uint64_t bytes, kv_done_callback callback, void* user,
                                kv_error* error) {
  job* blocks;
  uint32_t i;
  if (group >= runner->n_groups) return refuse(error, KV_INVALID_ARGUMENT, "group: expected one of the model's groups");
  for (i = 0; i < count; i++) {
    const int32_t limit = (int32_t)runner->n_blocks[group];
    if (sources[i] < 0 || sources[i] >= limit ||
        (kind == JOB_COPY && (destinations[i] < 0 || destinations[i] >= limit || n_tokens[i] < 0 ||
                              (uint32_t)n_tokens[i] > runner->block_tokens))) {
      return refuse(error, KV_INVALID_ARGUMENT, "blocks: expected ids inside the pool and at most a block of tokens");
    }
  }
  if (kind != JOB_COPY && bytes != runner->block_bytes[group] * count) {
    return refuse(error, KV_INVALID_ARGUMENT, "data: expected count payloads of block_bytes each");
  }
  blocks = calloc(1, sizeof(*blocks));
  if (blocks == NULL) return refuse(error, KV_OUT_OF_MEMORY, "blocks: no memory");
  blocks->kind = kind;
  blocks->user = user;
  blocks->done_callback = callback;
  blocks->group = group;
  blocks->count = count;
  blocks->data = data;
  blocks->sources = copied(sources, count * sizeof(int32_t));
  blocks->destinations = copied(destinations, count * sizeof(int32_t));
  blocks->n_copied = copied(n_tokens, count * sizeof(int32_t));
  return enqueue(runner, blocks, error);
}

kv_status kv_runner_copy_blocks(kv_runner* runner, uint32_t group, const int32_t* sources, const int32_t* destinations,
                                const int32_t* n_tokens, uint32_t count, kv_done_callback callback, void* user,
                                kv_error* error) {
  return enqueue_blocks(runner, JOB_COPY, group, sources, destinations, n_tokens, count, NULL, 0, callback, user, error);
}

kv_status kv_runner_read_blocks(kv_runner* runner, uint32_t group, const int32_t* blocks, uint32_t count, void* data,
                                uint64_t bytes, kv_done_callback callback, void* user, kv_error* error) {
  return enqueue_blocks(runner, JOB_READ, group, blocks, NULL, NULL, count, data, bytes, callback, user, error);
}

kv_status kv_runner_write_blocks(kv_runner* runner, uint32_t group, const int32_t* blocks, uint32_t count,
                                 const void* data, uint64_t bytes, kv_done_callback callback, void* user,
                                 kv_error* error) {
  /* The queue stores one pointer for both directions; a write only reads through it. */
  return enqueue_blocks(runner, JOB_WRITE, group, blocks, NULL, NULL, count, (unsigned char*)(uintptr_t)data, bytes,
                        callback, user, error);
}
