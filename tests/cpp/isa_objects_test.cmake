# Objects compiled for one instruction set define no weak symbol: of several equal ones the linker
# keeps any, and code for every CPU would run what only newer ones execute.
# OBJECTS: all objects of the library; NM: the program that lists symbols.
set(checked 0)
foreach(object IN LISTS OBJECTS)
  if(NOT object MATCHES "/(x86|arm)_[^/]*$")
    continue()
  endif()
  execute_process(COMMAND ${NM} -C --defined-only ${object} OUTPUT_VARIABLE symbols
    COMMAND_ERROR_IS_FATAL ANY)
  if(symbols MATCHES " [VWu] ([^\n]*)")
    message(SEND_ERROR "${object} defines ${CMAKE_MATCH_1}")
  endif()
  math(EXPR checked "${checked} + 1")
endforeach()
if(checked EQUAL 0)
  message(FATAL_ERROR "no objects of instruction sets")
endif()
message(STATUS "${checked} objects")
