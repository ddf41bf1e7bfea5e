// Forward: one pass of a batch through the model, from token ids to logits, by all threads together.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "cpu/runtime/attention_plan.h"
#include "cpu/runtime/attention_run.h"
#include "host/batch.h"
#include "cpu/runtime/kv_pool.h"
#include "cpu/runtime/model.h"
#include "cpu/runtime/thread_team.h"
#include "cpu/runtime/workspace.h"

namespace kv::cpu {

// Receives finished rows of logits. Called by every thread with disjoint rows.
class LogitsSink {
 public:
  virtual ~LogitsSink() = default;
  // wanted: index into the step's wanted tokens; logits: (V), scaled and capped, valid during the call.
  virtual void take(int thread, std::uint32_t wanted, float* logits) = 0;
};

class Forward {
 public:
  Forward(const Model& model, KvPool& pool, const KernelTable& kernels, ThreadTeam& team, Workspace& workspace,
          const BatchLimits& limits, kv_activation_mode mode);

  // workspace.token_ids, wanted_tokens, wanted_positions and wanted_begin are filled by the caller. Runs on the
  // submission thread; allocates nothing.
  void run(const StagedBatch& batch, std::uint32_t n_wanted, LogitsSink& sink);

 private:
  // What one thread needs to know while it walks through the phases of a step; all threads walk the same way.
  struct Member {
    int thread;
    std::int64_t phase;  // next ticket counter
  };

  void run_member(Member member, LogitsSink& sink);
  void embed(Member& member);
  void attention(Member& member, std::size_t index, bool last);
  void feed_forward(Member& member, const Layer& layer);
  void logits(Member& member, LogitsSink& sink);
  void position_and_store(const Layer& layer, std::uint32_t index, bool last, std::int64_t begin, std::int64_t end);
  void normalize(const float* weight, const float* x, float* out, std::byte* quantized, bool quantize,
                 std::int64_t tokens, std::int64_t begin, std::int64_t end);
  void join_residual(const float* post_norm, std::int64_t begin, std::int64_t end);
  void gather_wanted();

  template <typename Work>
  void each_item(Member& member, std::int64_t count, Work&& work);
  template <typename Work>
  void each_token(Member& member, std::int64_t tokens, Work&& work);
  template <typename After>
  void linears(Member& member, const LinearArgs* linears, int count, After&& after);
  std::int64_t rows_per_item(std::int64_t rows) const;
  std::byte* linear_scratch(const Member& member) const;
  LinearArgs linear_args(const Linear& linear, const float* x, const std::byte* quantized, float* y) const;
  bool wants_quantized(const WeightMatrix& weight) const;
  AttentionPlan& plan_for(const Layer& layer, bool last);

  const Model& model_;
  KvPool& pool_;
  const KernelTable& kernels_;
  ThreadTeam& team_;
  Workspace& space_;
  const kv_activation_mode mode_;
  AttentionPlanner planner_;
  std::vector<AttentionPlan> plans_;       // one per geometry, all tokens
  std::vector<AttentionPlan> last_plans_;  // the last layer's, wanted tokens only

  // The step being run; written by the submission thread before the team starts.
  const StagedBatch* batch_ = nullptr;
  std::int64_t tokens_ = 0;  // rows of the current layer: T, in the last layer the wanted ones after attention
  std::int64_t wanted_ = 0;
};

}  // namespace kv::cpu
