// The one place that includes napi.h, so that its modes are set the same way in every file of the binding.
#pragma once

#define NAPI_VERSION 8
#define NODE_ADDON_API_CPP_EXCEPTIONS
#define NODE_API_NO_EXTERNAL_BUFFERS_ALLOWED
// An exception that cannot be thrown means that the environment is being torn down; nobody is left to hear it.
#define NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS

#include <napi.h>
