# SPDX-License-Identifier: MIT
# Options by Linux's names. Body and table: options.pyx. Above: endpoint, connection, listener. Below: application.

# The name that setsockopt's two numbers are. Raises StackError (ENOPROTOOPT).
cdef str option_name(str call, object level, object number)
# There is such an option, it belongs there, and can be set. Raises StackError (ENOPROTOOPT) with the reason.
cdef int ensure_option(str call, object name, bint listener, bint setting) except -1
# Its conn_option_t; 0: the Python face's own.
cdef int option_code(str name) except -1
# A number within the option's bounds, 0 or 1 for a flag. Raises TypeError, ValueError.
cdef long option_number(str call, str name, object value) except -1
