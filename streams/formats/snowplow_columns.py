"""The columns of Snowplow's enriched event, in the order of the canonical event model, and which of them are read."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Final

from streams.formats._common import Fields
from streams.formats._names import VendorNames

COLUMNS: Final[tuple[str, ...]] = tuple(
    """
    app_id platform etl_tstamp collector_tstamp dvce_created_tstamp event event_id txn_id name_tracker v_tracker
    v_collector v_etl user_id user_ipaddress user_fingerprint domain_userid domain_sessionidx network_userid
    geo_country geo_region geo_city geo_zipcode geo_latitude geo_longitude geo_region_name ip_isp
    ip_organization ip_domain ip_netspeed page_url page_title page_referrer page_urlscheme page_urlhost
    page_urlport page_urlpath page_urlquery page_urlfragment refr_urlscheme refr_urlhost refr_urlport
    refr_urlpath refr_urlquery refr_urlfragment refr_medium refr_source refr_term mkt_medium mkt_source mkt_term
    mkt_content mkt_campaign contexts se_category se_action se_label se_property se_value unstruct_event
    tr_orderid tr_affiliation tr_total tr_tax tr_shipping tr_city tr_state tr_country ti_orderid ti_sku ti_name
    ti_category ti_price ti_quantity pp_xoffset_min pp_xoffset_max pp_yoffset_min pp_yoffset_max useragent
    br_name br_family br_version br_type br_renderengine br_lang br_features_pdf br_features_flash
    br_features_java br_features_director br_features_quicktime br_features_realplayer br_features_windowsmedia
    br_features_gears br_features_silverlight br_cookies br_colordepth br_viewwidth br_viewheight os_name
    os_family os_manufacturer os_timezone dvce_type dvce_ismobile dvce_screenwidth dvce_screenheight doc_charset
    doc_width doc_height tr_currency tr_total_base tr_tax_base tr_shipping_base ti_currency ti_price_base
    base_currency geo_timezone mkt_clickid mkt_network etl_tags dvce_sent_tstamp refr_domain_userid
    refr_dvce_tstamp derived_contexts domain_sessionid derived_tstamp event_vendor event_name event_format
    event_version event_fingerprint true_tstamp
    """.split()
)
"""131 since R73 of 2015; before that `true_tstamp` (130 columns) and `event_fingerprint` (129) were missing."""
WIDTHS: Final = frozenset({len(COLUMNS), len(COLUMNS) - 1, len(COLUMNS) - 2})
_ALWAYS: Final = (
    "platform", "collector_tstamp", "dvce_created_tstamp", "event", "event_id", "user_id", "domain_userid",
    "network_userid", "page_url", "page_urlpath", "contexts", "dvce_sent_tstamp", "domain_sessionid", "derived_tstamp",
    "event_name", "true_tstamp",
)  # fmt: skip
PINGED: Final = ("pp_yoffset_max", "br_viewheight", "doc_height")
"""What a page ping is measured by."""
_EVENT: Final = COLUMNS.index("event")
_MOST_TABLES: Final = 8


class Table:
    """Which columns of a row are read: few of them always, some only of some events.

    Args:
        names: say which columns hold labels, and which what a structured event or a transaction says.
    """

    def __init__(self, names: VendorNames) -> None:
        self.names = names  # kept, as `table_of` knows it by its address
        wanted = {key for kinds in names.properties.values() for keys in kinds.values() for key in keys}
        self.saying = tuple(name for name in COLUMNS if name in wanted or name == "se_action")
        self._always = _columns((*_ALWAYS, *(name for name in names.label_fields if name in COLUMNS)))
        says, describes = _columns(self.saying), _columns(("unstruct_event", "event_format"))
        self._of_event = {
            "struct": says, "transaction": says, "page_ping": _columns(PINGED), "unstruct": describes,
            "": describes,
        }  # fmt: skip

    def fields(self, columns: list[str]) -> Fields:
        """The columns that are read, by name."""
        names, take = self._always
        found = dict(zip(names, take(columns), strict=True))
        if (more := self._of_event.get(columns[_EVENT])) is not None:
            names, take = more
            found.update(zip(names, take(columns), strict=True))
        return found


def _columns(names: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[[list[str]], tuple[str, ...]]]:
    unique = tuple(dict.fromkeys(names))
    return unique, itemgetter(*map(COLUMNS.index, unique))


_tables: Final[dict[int, Table]] = {}


def table_of(names: VendorNames) -> Table:
    """The table of these names, made once: names are loaded once, too."""
    found = _tables.get(id(names))
    if found is None or found.names is not names:
        if len(_tables) >= _MOST_TABLES:
            _tables.clear()
        found = _tables[id(names)] = Table(names)
    return found
