-- The shop in MySQL: customers, products, orders, order_items.
--
-- Every statement works in the connection's current database. The blocks have the names and the
-- parameters of shop_postgres.sql; placeholders are pymysql's (%s), in the order of the columns.

-- name: schema
-- The current database, the number of this connection (never given out twice while the server runs),
-- and since when the server runs.
SELECT database(), connection_id(), UTC_TIMESTAMP() - INTERVAL variable_value SECOND
FROM performance_schema.global_status WHERE variable_name = 'Uptime';

-- name: use_schema
-- Times go in and come out in UTC, whatever the server's own zone is. A lock that somebody else holds is
-- waited for, but not for ever; the server's default for locks on whole tables is a year.
-- In a text a backslash escapes: the writer quotes texts so.
SET time_zone = '+00:00', innodb_lock_wait_timeout = 20, lock_wait_timeout = 20,
    sql_mode = REPLACE(@@sql_mode, 'NO_BACKSLASH_ESCAPES', '');

-- name: create_shop
-- created_at is a TIMESTAMP (an instant) and updated_at a DATETIME (a wall clock, here always UTC):
-- readers of the binlog treat MySQL's two types of time differently, so the shop has both.
-- The comment on each table is how drop_shop's caller knows that the table is the shop's.
-- Generated keys begin far above those that the workload hands out, so rows inserted by hand never collide.
CREATE TABLE customers (
    id           bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name         varchar(200) NOT NULL,
    email        varchar(200) NOT NULL UNIQUE,
    country      char(2) NOT NULL,
    newsletter   boolean NOT NULL DEFAULT false,
    credit_limit decimal(12, 2) CHECK (credit_limit >= 0),
    profile      json NOT NULL,
    created_at   timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at   datetime(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6))
) ENGINE = InnoDB CHARACTER SET utf8mb4 AUTO_INCREMENT = 1000000000 COMMENT = 'streamlab shop';

CREATE TABLE products (
    id           bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    sku          varchar(50) NOT NULL UNIQUE,
    name         varchar(200) NOT NULL,
    category     varchar(50) NOT NULL,
    price        decimal(10, 2) NOT NULL CHECK (price > 0),
    stock        integer NOT NULL DEFAULT 0 CHECK (stock >= 0),
    -- MySQL has no arrays: a JSON list of strings.
    tags         json NOT NULL,
    photo        mediumtext,
    created_at   timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at   datetime(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6))
) ENGINE = InnoDB CHARACTER SET utf8mb4 AUTO_INCREMENT = 1000000000 COMMENT = 'streamlab shop';

CREATE TABLE orders (
    id           bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    customer_id  bigint NOT NULL,
    status       enum('placed', 'paid', 'shipped', 'delivered', 'cancelled') NOT NULL DEFAULT 'placed',
    region       varchar(50) NOT NULL,
    total        decimal(12, 2) NOT NULL CHECK (total >= 0),
    details      json NOT NULL,
    note         text,
    created_at   timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at   datetime(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    INDEX orders_updated_at (updated_at),
    FOREIGN KEY (customer_id) REFERENCES customers (id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 AUTO_INCREMENT = 1000000000 COMMENT = 'streamlab shop';

CREATE TABLE order_items (
    order_id     bigint NOT NULL,
    line_no      integer NOT NULL,
    product_id   bigint NOT NULL,
    quantity     integer NOT NULL CHECK (quantity > 0),
    unit_price   decimal(10, 2) NOT NULL,
    amount       decimal(12, 2) NOT NULL,
    created_at   timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    updated_at   datetime(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    PRIMARY KEY (order_id, line_no),
    FOREIGN KEY (order_id) REFERENCES orders (id),
    FOREIGN KEY (product_id) REFERENCES products (id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COMMENT = 'streamlab shop';

-- name: shop_tables
-- The shop's names that are taken in this database, each with the comment that marks our own.
SELECT table_name, table_comment
FROM information_schema.tables
WHERE table_schema = database()
  AND table_name IN ('customers', 'products', 'orders', 'order_items')
ORDER BY table_name;

-- name: drop_shop
-- Children first. Only after shop_tables has said that every table here is ours.
DROP TABLE IF EXISTS order_items;
DROP TABLE IF EXISTS orders;
DROP TABLE IF EXISTS products;
DROP TABLE IF EXISTS customers;

-- name: is_empty
-- Whether no row stands in any table. An order or item cannot be there without a customer and a product.
SELECT NOT EXISTS (SELECT 1 FROM customers) AND NOT EXISTS (SELECT 1 FROM products);

-- name: session_alive
-- Whether the server still serves a connection: the number is there, and the server was not restarted since
-- (its uptime is counted in whole seconds). The view in information_schema is the one that works with the
-- performance schema switched off; without special rights one sees the sessions of one's own user.
SELECT EXISTS (SELECT 1 FROM information_schema.processlist WHERE id = %s)
   AND ABS(TIMESTAMPDIFF(SECOND, %s, UTC_TIMESTAMP() - INTERVAL variable_value SECOND)) <= 2
FROM performance_schema.global_status WHERE variable_name = 'Uptime';

-- name: insert_customers
-- A list of rows goes out as one INSERT with many VALUES; foreign keys stay checked.
INSERT INTO customers (id, name, email, country, newsletter, credit_limit, profile, created_at, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: insert_products
INSERT INTO products (id, sku, name, category, price, stock, tags, photo, created_at, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: insert_orders
INSERT INTO orders (id, customer_id, status, region, total, details, note, created_at, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s);

-- name: insert_order_items
INSERT INTO order_items (order_id, line_no, product_id, quantity, unit_price, amount, created_at, updated_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s);

-- name: update_customers_profile
UPDATE customers SET newsletter = %s, credit_limit = %s, profile = %s, updated_at = %s WHERE id = %s;

-- name: update_products_price
UPDATE products SET price = %s, updated_at = %s WHERE id = %s;

-- name: update_products_stock
UPDATE products SET stock = %s, updated_at = %s WHERE id = %s;

-- name: update_products_photo
UPDATE products SET photo = %s, updated_at = %s WHERE id = %s;

-- name: update_orders_status
UPDATE orders SET status = %s, updated_at = %s WHERE id = %s;

-- name: update_orders_total
UPDATE orders SET total = %s, updated_at = %s WHERE id = %s;

-- name: update_order_items_quantity
UPDATE order_items SET quantity = %s, amount = %s, updated_at = %s WHERE order_id = %s AND line_no = %s;

-- name: delete_order_items
DELETE FROM order_items WHERE order_id = %s AND line_no = %s;

-- name: delete_orders
DELETE FROM orders WHERE id = %s;

-- name: delete_customers
DELETE FROM customers WHERE id = %s;

-- name: delete_products
DELETE FROM products WHERE id = %s;

-- name: select_customers
SELECT id, name, email, country, newsletter, credit_limit, profile, created_at, updated_at
FROM customers ORDER BY id;

-- name: select_products
SELECT id, sku, name, category, price, stock, tags, photo, created_at, updated_at
FROM products ORDER BY id;

-- name: select_orders
SELECT id, customer_id, status, region, total, details, note, created_at, updated_at
FROM orders ORDER BY id;

-- name: select_order_items
SELECT order_id, line_no, product_id, quantity, unit_price, amount, created_at, updated_at
FROM order_items ORDER BY order_id, line_no;

-- name: find_customers
-- The find blocks tell whether one row is there, and which transaction of the workload wrote it last.
SELECT updated_at FROM customers WHERE id = %s;

-- name: find_products
SELECT updated_at FROM products WHERE id = %s;

-- name: find_orders
SELECT updated_at FROM orders WHERE id = %s;

-- name: find_order_items
SELECT updated_at FROM order_items WHERE order_id = %s AND line_no = %s;
