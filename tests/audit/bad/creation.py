# ruff: noqa: B008
"""Connections, engines and clients that are made again and again."""

import os

import asyncpg
import httpx
import psycopg2
import pymysql
import redis
import requests
from fastapi import Depends, FastAPI
from flask import Flask, jsonify
from psycopg2.pool import SimpleConnectionPool
from sqlalchemy import create_engine, text
from sqlalchemy.orm import sessionmaker

app = Flask(__name__)
api = FastAPI()
DSN = os.environ["DSN"]


def one_for_each_row(rows):
    for row in rows:
        conn = psycopg2.connect(DSN)  # expect: PEN201
        try:
            conn.cursor().execute("INSERT INTO t VALUES (%s)", row)
            conn.commit()
        finally:
            conn.close()


def by_a_helper_in_a_loop(names):
    while names:
        db = opened()  # expect: PEN201
        try:
            db.cursor().execute("SELECT %s", (names.pop(),))
        finally:
            db.close()


def opened():
    return pymysql.connect(host="db", user="app")


@app.route("/count")
def count():
    conn = psycopg2.connect(DSN)  # expect: PEN202
    try:
        cur = conn.cursor()
        cur.execute("SELECT count(*) FROM t")
        return jsonify(cur.fetchone()[0])
    finally:
        conn.close()


def get_db_connection():
    return psycopg2.connect(DSN)  # expect: PEN202


@app.get("/users")
def users():
    conn = get_db_connection()
    try:
        cur = conn.cursor()
        cur.execute("SELECT name FROM users")
        return jsonify(cur.fetchall())
    finally:
        conn.close()


@api.get("/items")
async def items():
    conn = await asyncpg.connect(DSN)  # expect: PEN202
    try:
        return await conn.fetch("SELECT 1")
    finally:
        await conn.close()


def get_db():
    conn = pymysql.connect(host="db", user="app")  # expect: PEN202
    try:
        yield conn
    finally:
        conn.close()


@api.post("/items")
def add(db=Depends(get_db)):
    with db.cursor() as cur:
        cur.execute("INSERT INTO items VALUES (1)")


def lambda_handler(event, context):
    with pymysql.connect(host="db", user="app") as conn, conn.cursor() as cur:  # expect: PEN202
        cur.execute("SELECT 1")
        return cur.fetchone()


def application(environ, start_response):
    conn = psycopg2.connect(DSN)  # expect: PEN202
    try:
        conn.cursor().execute("SELECT 1")
    finally:
        conn.close()
    start_response("200 OK", [])
    return [b"ok"]


async def late(request):
    conn = await asyncpg.connect(DSN)  # expect: PEN202
    try:
        return await conn.fetch("SELECT 1")
    finally:
        await conn.close()


api.add_api_route("/late", late)


@app.route("/engine")
def an_engine():
    engine = create_engine(DSN)  # expect: PEN203
    with engine.connect() as conn:
        return str(conn.execute(text("SELECT 1")).scalar())


@app.route("/pool")
def a_pool():
    pool = SimpleConnectionPool(1, 5, DSN)  # expect: PEN203
    conn = pool.getconn()
    try:
        conn.cursor().execute("SELECT 1")
        return "ok"
    finally:
        pool.putconn(conn)


def get_session():
    engine = create_engine(DSN)  # expect: PEN203
    return sessionmaker(bind=engine)()


async def each_time(sql):
    pool = await asyncpg.create_pool(DSN)  # expect: PEN203
    async with pool.acquire() as conn:
        return await conn.fetch(sql)


@api.get("/proxy")
async def proxy():
    async with httpx.AsyncClient() as client:  # expect: PEN204
        return (await client.get("http://inside/")).json()


@app.route("/cached")
def cached():
    client = redis.Redis(host="cache")  # expect: PEN204
    return client.get("k") or ""


@app.route("/fetched")
def fetched():
    session = requests.Session()  # expect: PEN204
    return session.get("http://inside/", timeout=5).text
