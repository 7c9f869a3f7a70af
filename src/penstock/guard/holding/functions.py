"""What a statement may do to its session that its text does not tell: whatever a function that it calls does.

So a connection on which one was called that is not known to be harmless is not given up while its owner keeps it. A
name that is missing here costs that, and nothing worse. What a trigger, a view or an operator calls is not seen at all.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ...drivers.session import LONGEST_REMEMBERED
from ...drivers.visible import in_mysql, in_postgresql

# Words of SQL before a parenthesis, and types. CALL, DO and EXECUTE are looked for by themselves.
_WORDS = """
all and any array as between by case check cube distinct else end except exclude exists filter following from group
grouping having ilike in insert intersect into is join key lateral like limit match materialized not null offset on
only or order outer over partition percent preceding primary range references replace returning rollup row rows select
set sets similar some symmetric table then unique union until update using value values when where window with within
collate constraint default foreign index interval duplicate on ignore force use bigint binary bit boolean char
character date datetime dec decimal double float int integer numeric real smallint signed text time timestamp
timestamptz timetz tinyint unsigned varbinary varbit varchar varying year enum json jsonb
"""
_FUNCTIONS = """
abs age array_agg array_append array_cat array_fill array_length array_lower array_ndims array_position
array_positions array_prepend array_remove array_replace array_to_json array_to_string array_upper ascii avg bit_and
bit_count bit_length bit_or bit_xor bool_and bool_or btrim cardinality cast cbrt ceil ceiling char_length
character_length chr clock_timestamp coalesce col_description concat concat_ws convert convert_from convert_to corr
count cume_dist current_database current_date current_schema current_schemas current_setting current_time
current_timestamp date_bin date_part date_trunc decode degrees dense_rank div encode every exp extract factorial
first_value floor format format_type gcd gen_random_uuid generate_series generate_subscripts get_bit get_byte greatest
grouping has_schema_privilege has_table_privilege initcap isfinite json_agg json_array json_array_elements
json_array_elements_text json_array_length json_arrayagg json_build_array json_build_object json_each json_each_text
json_extract json_extract_path json_extract_path_text json_keys json_object json_object_agg json_object_keys
json_objectagg json_populate_record json_populate_recordset json_query json_quote json_set json_strip_nulls json_table
json_to_record json_to_recordset json_typeof json_unquote json_valid json_value jsonb_agg jsonb_array_elements
jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text
jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys
jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first
jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_to_record
jsonb_to_recordset jsonb_typeof justify_days justify_hours justify_interval lag last_value lastval lcm lead least left
length ln localtime localtimestamp log log10 lower lpad ltrim make_date make_interval make_time make_timestamp
make_timestamptz max md5 min mod mode now nth_value ntile nullif num_nonnulls num_nulls numnode obj_description
octet_length overlay parse_ident percent_rank percentile_cont percentile_disc pg_backend_pid pg_column_size
pg_current_wal_lsn pg_database_size pg_get_constraintdef pg_get_expr pg_get_indexdef pg_get_serial_sequence
pg_get_userbyid pg_get_viewdef pg_is_in_recovery pg_my_temp_schema pg_postmaster_start_time pg_relation_size
pg_size_pretty pg_sleep pg_stat_get_activity pg_table_is_visible pg_table_size pg_total_relation_size
pg_type_is_visible pg_typeof phraseto_tsquery pi plainto_tsquery position power pow quote_ident quote_literal
quote_nullable radians random rank regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
regexp_split_to_array regexp_split_to_table regexp_substr regr_slope repeat reverse right round row_number row_to_json
rpad rtrim scale setweight sha224 sha256 sha384 sha512 shobj_description sign similarity sin sqrt cos tan split_part
starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg string_to_array string_to_table strpos substr
substring sum timeofday to_ascii to_char to_date to_hex to_json to_jsonb to_number to_regclass to_regtype to_timestamp
to_tsquery to_tsvector transaction_timestamp translate trim trim_array trunc ts_headline ts_rank ts_rank_cd
tsvector_to_array txid_current unaccent unicode unistr unnest upper uuid_generate_v4 uuidv4 uuidv7 var_pop var_samp
variance version websearch_to_tsquery width_bucket xmlagg nextval currval setval adddate addtime aes_decrypt
aes_encrypt any_value bin bin_to_uuid charset coercibility collation compress connection_id conv convert_tz crc32
curdate curtime database date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear elt
export_set field find_in_set found_rows from_base64 from_days from_unixtime get_format group_concat hex hour if ifnull
inet6_aton inet6_ntoa inet_aton inet_ntoa instr isnull json_array_append json_array_insert json_contains
json_contains_path json_depth json_insert json_length json_merge_patch json_merge_preserve json_overlaps json_pretty
json_remove json_replace json_search json_type last_day last_insert_id lcase load_file locate log2 makedate maketime
microsecond mid minute month monthname name_const oct ord password period_add period_diff quarter quote rand row_count
schema sec_to_time second session_user sha sha1 sha2 sleep soundex space std str_to_date strcmp subdate
substring_index subtime sys_guid sysdate system_user time_format time_to_sec timediff timestampadd timestampdiff
to_base64 to_days to_seconds truncate ucase uncompress unhex unix_timestamp user utc_date utc_time utc_timestamp uuid
uuid_short uuid_to_bin week weekday weekofyear yearweek st_distance st_distance_sphere st_dwithin st_contains
st_within st_intersects st_geomfromtext st_astext st_asgeojson st_makepoint st_point st_setsrid st_x st_y st_transform
st_area st_length
"""
_HARMLESS = frozenset(_WORDS.split()) | frozenset(_FUNCTIONS.split())
_CALLS = re.compile(r"\A[\s(]*(?:call|do|execute|exec|declare|begin\s+not)\b")
# A table's name before a list of columns.
_COLUMNS = re.compile(
    r"\b(?:into|references|(?:table|exists|with|recursive|view)(?=\s+(?!exists|if\b)\w))\s+[\w.$]+\s*\("
)
_CALLED = re.compile(r"([\w$.]+)\s*\(")
_OWN = "pg_catalog."


def may_hide(statement: str, mysql: bool) -> bool:
    """Whether *statement* calls what may change its session, for all that its text tells."""
    return _remembered(statement, mysql) if len(statement) <= LONGEST_REMEMBERED else _may_hide(statement, mysql)


def _may_hide(statement: str, mysql: bool) -> bool:
    text = statement.lower()
    if "(" not in text:
        return _CALLS.match(text) is not None
    if mysql:
        visible = in_mysql(text.replace("`", " "))
    else:
        visible = in_postgresql(statement.replace('"', " "))
    if visible is None:
        return True
    visible = visible.lower()
    if _CALLS.match(visible):
        return True
    return not all(map(_is_harmless, _CALLED.findall(_COLUMNS.sub(",(", visible))))


def _is_harmless(name: str) -> bool:
    return name.removeprefix(_OWN) in _HARMLESS or name.isdigit()


_remembered = lru_cache(maxsize=1024)(_may_hide)
