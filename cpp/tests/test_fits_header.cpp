#include "raftwright/fits_header.hpp"

#include "doctest.h"
#include "raftwright/error.hpp"

using namespace raftwright;

TEST_CASE("fits header: cards are formed as the standard's fixed format") {
  FitsHeader header;
  header.append_logical("SIMPLE", true, "conforms");
  header.append_integer("NAXIS1", -7, "");
  header.append_string("OBSID", "it's", "a name");
  CHECK(header.card(0) == "SIMPLE  =                    T / conforms" + std::string(39, ' '));
  CHECK(header.card(1) == "NAXIS1  =                   -7" + std::string(50, ' '));
  CHECK(header.card(2) == "OBSID   = 'it''s   '           / a name" + std::string(41, ' '));
  CHECK(header.integer("NAXIS1") == -7);
  CHECK_FALSE(header.integer("OBSID"));
  CHECK_FALSE(header.integer("ABSENT"));
  CHECK(header.block().size() == kFitsBlock);
  CHECK(header.block().substr(240, 4) == "END ");
}

TEST_CASE("fits header: a string is set where it stands and keeps its comment") {
  FitsHeader header(fits_card("CHECKSUM", "'0000000000000000'", "sum / of this HDU") +
                    fits_card("ODD", "'a / b''c'", "kept") + fits_card("OBSID", "'x       '", "n"));
  header.set_string("CHECKSUM", "abcdefghABCDEFGH", "not used");
  header.set_string("ODD", "d", "not used");
  header.set_string("DATASUM", "0", "new one");
  CHECK(header.card(0) == "CHECKSUM= 'abcdefghABCDEFGH'   / sum / of this HDU" + std::string(30, ' '));
  CHECK(header.card(1).substr(0, 40) == "ODD     = 'd       '           / kept   ");
  CHECK(header.card(3).substr(0, 42) == "DATASUM = '0       '           / new one  ");
  header.rename("CHECKSUM", "ZHECKSUM");
  CHECK(header.keyword(0) == "ZHECKSUM");
  CHECK_FALSE(header.find("CHECKSUM"));
}

TEST_CASE("fits header: hostile text is refused") {
  CHECK_THROWS_AS(FitsHeader(std::string(79, ' ')), FormatError);
  CHECK_THROWS_AS(FitsHeader(std::string(79, ' ') + "\n"), FormatError);
  CHECK_THROWS_AS(FitsHeader(std::string(79, ' ') + "\xe9"), FormatError);
  CHECK_THROWS_AS(FitsHeader("END" + std::string(77, ' ')), FormatError);
  CHECK_THROWS_AS(FitsHeader(std::string(std::size_t{80} << 17U, ' ')), FormatError);
  FitsHeader header;
  CHECK_THROWS_AS(header.append_string("LONG", std::string(70, 'x'), ""), UsageError);
  CHECK_THROWS_AS(header.append_integer("TOOLONGKEY", 1, ""), UsageError);
  CHECK_THROWS_AS(header.append(std::string(81, ' ')), UsageError);
}
