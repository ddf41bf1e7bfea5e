// MappedFile: one weight file, read-only, shared with the page cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "host/fault_guard.h"

namespace kv {

class MappedFile {
 public:
  // Opens and measures; nothing is mapped yet. KV_FILE_UNREADABLE when it is missing, forbidden or no regular file.
  explicit MappedFile(const char* path);
  ~MappedFile();
  MappedFile(MappedFile&& other) = delete;

  void map();

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }
  const std::byte* data() const { return data_; }

  // True when a page was missing at an access, or the file is now shorter than it was when it was opened. The second
  // check sees what the first cannot: a cut inside the last page reads as zeros. Costs one fstat.
  bool truncated() const noexcept;

 private:
  std::string path_;
  int descriptor_ = -1;
  uint64_t bytes_ = 0;
  const std::byte* data_ = nullptr;
  std::optional<FaultGuard> guard_;
};

}  // namespace kv
