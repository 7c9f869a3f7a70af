"""Django's MySQL and MariaDB backend with a pool of ours beneath."""
