#include "host/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/status.h"

namespace kv {

MappedFile::MappedFile(const char* path) : path_(path) {
  descriptor_ = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) {
    fail(KV_FILE_UNREADABLE, "%s: cannot be opened (%s); check the path and its permissions", path,
         std::strerror(errno));
  }
  struct stat status {};
  if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(descriptor_);
    fail(KV_FILE_UNREADABLE, "%s: expected a regular file, found something else; pass the weight file itself", path);
  }
  bytes_ = static_cast<uint64_t>(status.st_size);
}

MappedFile::~MappedFile() {
  guard_.reset();
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), bytes_);
  if (descriptor_ >= 0) close(descriptor_);
}

void MappedFile::map() {
  if (bytes_ == 0) fail(KV_FILE_TRUNCATED, "%s: expected weights, found an empty file; fetch it again", path_.c_str());
  void* data = mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, descriptor_, 0);
  if (data == MAP_FAILED) {
    fail(KV_FILE_UNREADABLE, "%s: %llu bytes cannot be mapped (%s)", path_.c_str(),
         static_cast<unsigned long long>(bytes_), std::strerror(errno));
  }
  data_ = static_cast<const std::byte*>(data);
  guard_.emplace(data_, bytes_);
}

bool MappedFile::truncated() const noexcept {
  if (guard_.has_value() && guard_->damaged()) return true;
  struct stat status {};
  return fstat(descriptor_, &status) != 0 || static_cast<uint64_t>(status.st_size) < bytes_;
}

}  // namespace kv
