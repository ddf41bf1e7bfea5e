#include "napi/fields.h"

#include "napi/errors.h"

#include <cmath>
#include <limits>
#include <type_traits>

namespace kv::node {
namespace {

constexpr double kLargestSafeInteger = 9007199254740991.0;

template <typename T>
constexpr napi_typedarray_type array_type() {
  if constexpr (std::is_same_v<T, int32_t>) return napi_int32_array;
  if constexpr (std::is_same_v<T, uint32_t>) return napi_uint32_array;
  if constexpr (std::is_same_v<T, uint8_t>) return napi_uint8_array;
  if constexpr (std::is_same_v<T, float>) return napi_float32_array;
  if constexpr (std::is_same_v<T, double>) return napi_float64_array;
}

}  // namespace

template <typename T>
const char* array_name() {
  if constexpr (std::is_same_v<T, int32_t>) return "an Int32Array";
  if constexpr (std::is_same_v<T, uint32_t>) return "a Uint32Array";
  if constexpr (std::is_same_v<T, uint8_t>) return "a Uint8Array";
  if constexpr (std::is_same_v<T, float>) return "a Float32Array";
  if constexpr (std::is_same_v<T, double>) return "a Float64Array";
}

template <typename T>
bool try_view(Napi::Env env, napi_value value, View<T>& view) {
  napi_typedarray_type type;
  void* data = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &view.length, &data, nullptr, nullptr) != napi_ok ||
      type != array_type<T>()) {
    return false;
  }
  view.data = static_cast<T*>(data);
  return true;
}

template bool try_view(Napi::Env, napi_value, View<int32_t>&);
template const char* array_name<int32_t>();
template bool try_view(Napi::Env, napi_value, View<uint32_t>&);
template const char* array_name<uint32_t>();
template bool try_view(Napi::Env, napi_value, View<uint8_t>&);
template const char* array_name<uint8_t>();
template bool try_view(Napi::Env, napi_value, View<float>&);
template const char* array_name<float>();
template bool try_view(Napi::Env, napi_value, View<double>&);
template const char* array_name<double>();

std::string kind_of(Napi::Env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env, value, &type);
  switch (type) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: return "the number " + Napi::Number(env, value).ToString().Utf8Value();
    case napi_string: return "a string";
    case napi_symbol: return "a symbol";
    case napi_function: return "a function";
    case napi_bigint: return "a bigint";
    default: return "an object";
  }
}

Fields::Fields(Napi::Value object, const char* path, int64_t index)
    : env_(object.Env()), object_(object), path_(path), index_(index) {
  if (!object.IsObject()) refuse_argument(path_of("") + ": expected an object, found " + kind_of(env_, object));
}

uint32_t Fields::u32(const char* name) const {
  const double value = number(name, "an integer of 0 to 4294967295");
  if (!(value >= 0 && value <= std::numeric_limits<uint32_t>::max()) || std::trunc(value) != value) {
    refuse(name, "an integer of 0 to 4294967295", std::to_string(value));
  }
  return static_cast<uint32_t>(value);
}

int32_t Fields::i32(const char* name) const {
  const double value = number(name, "a 32-bit integer");
  if (!(value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max()) ||
      std::trunc(value) != value) {
    refuse(name, "a 32-bit integer", std::to_string(value));
  }
  return static_cast<int32_t>(value);
}

float Fields::f32(const char* name) const { return static_cast<float>(number(name, "a number")); }

double Fields::f64(const char* name) const { return number(name, "a number"); }

uint64_t Fields::u64(const char* name) const {
  const double value = number(name, "an integer of 0 to 2^53 - 1");
  if (!(value >= 0 && value <= kLargestSafeInteger) || std::trunc(value) != value) {
    refuse(name, "an integer of 0 to 2^53 - 1", std::to_string(value));
  }
  return static_cast<uint64_t>(value);
}

uint64_t Fields::u64_from_bigint(const char* name) const {
  napi_value value = get(name);
  uint64_t result = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(env_, value, &result, &lossless) != napi_ok || !lossless) {
    refuse(name, "a bigint of 0 to 2^64 - 1", kind_of(env_, value));
  }
  return result;
}

std::string Fields::text(const char* name) const {
  napi_value value = get(name);
  size_t length = 0;
  if (napi_get_value_string_utf8(env_, value, nullptr, 0, &length) != napi_ok) {
    refuse(name, "a string", kind_of(env_, value));
  }
  std::string result = Napi::String(env_, value).Utf8Value();
  if (result.find('\0') != std::string::npos) refuse(name, "a string without NUL", "one with NUL");
  return result;
}

bool Fields::has(const char* name) const {
  napi_valuetype type = napi_undefined;
  napi_typeof(env_, get(name), &type);
  return type != napi_undefined && type != napi_null;
}

std::vector<Napi::Value> Fields::list(const char* name) const {
  const Napi::Value value(env_, get(name));
  if (!value.IsArray()) refuse(name, "an array", kind_of(env_, value));
  const Napi::Array array = value.As<Napi::Array>();
  std::vector<Napi::Value> elements;
  const uint32_t length = array.Length();
  for (uint32_t i = 0; i < length; i++) elements.push_back(array.Get(i));
  return elements;
}

void Fields::refuse(const char* name, const std::string& expected, const std::string& found) const {
  refuse_argument(path_of(name) + ": expected " + expected + ", found " + found);
}

void Fields::refuse_length(const char* name, size_t expected, size_t found) const {
  refuse(name, std::to_string(expected) + " elements", std::to_string(found));
}

std::string Fields::path_of(const char* name) const {
  std::string path = path_;
  if (index_ >= 0) path += "[" + std::to_string(index_) + "]";
  if (name[0] != '\0') path += std::string(".") + name;
  return path;
}

napi_value Fields::get(const char* name) const {
  napi_value value = nullptr;
  if (napi_get_named_property(env_, object_, name, &value) != napi_ok) throw Napi::Error::New(env_);
  return value;
}

double Fields::number(const char* name, const char* expected) const {
  napi_value value = get(name);
  double result = 0;
  if (napi_get_value_double(env_, value, &result) != napi_ok) refuse(name, expected, kind_of(env_, value));
  return result;
}

}  // namespace kv::node
