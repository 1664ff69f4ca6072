/* tests/abi/defects.h -- the defects that defects.so can be told to have, and what the refusal says. */
#ifndef ST_TESTS_DEFECTS_H
#define ST_TESTS_DEFECTS_H

/* X(name, part of the sentence) */
#define DEFECTS(X)                                    \
    X(none, NULL)                                     \
    X(core_short, "its plugin table has 12 bytes")    \
    X(core_no_id, "its id is missing")                \
    X(core_bad_id, "its id is missing or has other")  \
    X(core_no_init, "has no init")                    \
    X(core_no_fini, "has no fini")                    \
    X(core_no_extension, "has no extension")          \
    X(core_init_fails, "could not start: no luck today") \
    X(core_init_mute, "it gives no reason")           \
    X(backend_short, "setun.backend/1 table has 40 bytes") \
    X(backend_long, "says it is 70000 bytes long")    \
    X(backend_mute, "failed to describe itself")      \
    X(backend_no_name, "no name that --backend")      \
    X(backend_bad_name, "no name that --backend")     \
    X(ops_short, "setun.ops/1 table has 4 bytes")     \
    X(ops_many, "says it has 123456789 operators")    \
    X(ops_null_list, "says it has 2 operators, which it does not list") \
    X(ops_hole, "operator 1 of its 2 is missing")     \
    X(ops_twice, "two operators called defect")       \
    X(op_short, "descriptor has 16 bytes")            \
    X(op_long, "says it is 4294967295 bytes long")    \
    X(op_no_name, "an operator has no name")          \
    X(op_bad_name, "an operator has no name, or one") \
    X(op_no_infer, "operator defect has no infer")    \
    X(op_no_eval, "operator defect has no eval")      \
    X(op_no_cases, "has no cases")                    \
    X(op_empty_cases, "has no cases")                 \
    X(op_no_output, "has no output")                  \
    X(op_many_inputs, "says it has 1000000 inputs")   \
    X(op_null_inputs, "says it has 1 inputs, and does not list them") \
    X(op_port_no_name, "input 0 of operator defect has no proper name") \
    X(op_port_twice, "two outputs called y")          \
    X(op_shares, "output y of operator defect shares input 6") \
    X(op_attr_null, "attributes, which it does not list") \
    X(op_attr_kind, "attribute a of operator defect is of the unknown kind 9") \
    X(op_attr_twice, "two attributes called a")       \
    X(op_attr_default, "is optional and has no default") \
    X(op_tolerance, "a tolerance that is negative or not a number") \
    X(format_short, "setun.format/1 table has 16 bytes") \
    X(format_no_open, "setun.format/1 table lacks open") \
    X(format_bad_name, "a format's name has 1 to 63 of")

enum {
#define X(name, text) DEFECT_##name,
    DEFECTS(X)
#undef X
    N_DEFECTS
};

#endif
