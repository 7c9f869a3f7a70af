"""Settings for Laravel. PHP has no pool: each process of php-fpm has a connection, and their number bounds them."""

from __future__ import annotations

from .share import PREPARED, Share


def laravel(share: Share) -> str:
    """A php-fpm pool section: as many children in a replica as its processes' connections together."""
    children = share.service.processes * share.each
    spare = max(1, children // 4)
    alive = share.service.alive
    prepared = (
        PREPARED,
        "In config/database.php, pgsql:",
        "    'options' => [PDO::ATTR_EMULATE_PREPARES => true],",
    )
    more = (
        "",
        "Laravel has no connection pool: each php-fpm child has one connection for a request, so that children count:",
        f"{share.service.processes} x {share.each} = {children} of them in a replica, "
        f"{alive} x {children} = {alive * children} connections at the worst moment.",
        "Every further connection that a request uses (a second entry of config/database.php) counts again: divide by",
        "their number. Queue workers (horizon's maxProcesses, queue:work) are none of them: declare a side pool.",
        "Leave PDO::ATTR_PERSISTENT off in config/database.php.",
        *(() if share.pooler is None else prepared),
    )
    return f"""{share.comment(";", *more).replace("; " + chr(10), ";" + chr(10))}[www]
pm = dynamic
pm.max_children = {children}
pm.start_servers = {spare}
pm.min_spare_servers = {spare}
pm.max_spare_servers = {max(spare, children // 2)}
; a child that leaks is replaced, and its connection with it
pm.max_requests = 1000
"""
