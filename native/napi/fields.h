// Reads plain JavaScript objects field by field into C types, refusing what would not survive the conversion: a wrong
// type, a fraction, a number out of range, an array of another length. Messages name the path, what was expected and
// what was found. JavaScript thread.
#pragma once

#include "napi/include_napi.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kv::node {

// Elements of a JavaScript typed array. Borrowed: valid until control returns to JavaScript.
template <typename T>
struct View {
  T* data = nullptr;
  size_t length = 0;
};

// Fills `view` when value is a typed array of exactly T's element type (int32, uint32, uint8, float or double).
template <typename T>
bool try_view(Napi::Env env, napi_value value, View<T>& view);

// What a message calls the typed array of T, and a value found in its place.
template <typename T>
const char* array_name();
std::string kind_of(Napi::Env env, napi_value value);

class Fields {
 public:
  // `path` as messages call the object, e.g. "batch"; `index` >= 0 makes it "layers[index]".
  Fields(Napi::Value object, const char* path, int64_t index = -1);

  uint32_t u32(const char* name) const;
  int32_t i32(const char* name) const;
  float f32(const char* name) const;
  double f64(const char* name) const;
  uint64_t u64(const char* name) const;           // a number: an integer of 0 .. 2^53 - 1
  uint64_t u64_from_bigint(const char* name) const;
  std::string text(const char* name) const;       // UTF-8 without NUL
  bool has(const char* name) const;               // neither missing, undefined nor null

  // A typed array; with `length` also its exact length.
  template <typename T>
  View<T> array(const char* name) const {
    View<T> view;
    const napi_value value = get(name);
    if (!try_view(env_, value, view)) refuse(name, array_name<T>(), kind_of(env_, value));
    return view;
  }
  template <typename T>
  View<T> array(const char* name, size_t length) const {
    View<T> view = array<T>(name);
    if (view.length != length) refuse_length(name, length, view.length);
    return view;
  }

  // A plain array's elements.
  std::vector<Napi::Value> list(const char* name) const;

  [[noreturn]] void refuse(const char* name, const std::string& expected, const std::string& found) const;
  std::string path_of(const char* name) const;

 private:
  napi_value get(const char* name) const;
  double number(const char* name, const char* expected) const;
  [[noreturn]] void refuse_length(const char* name, size_t expected, size_t found) const;

  Napi::Env env_;
  napi_value object_;
  const char* path_;
  int64_t index_;
};

}  // namespace kv::node
